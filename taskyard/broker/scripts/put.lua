-- Store messages; each is then waiting or delayed. A second put of the same message (same publication and queue) changes nothing.
--
-- ARGV[3...] PUT.count arguments per message, see PutFields in shared_names.py: queue, tag, nonce, payload, priority 0-9, group or '',
--            due (ms since 1970; 0: none), delay (ms; 0: none), '1' for LIFO, dedup key or '', dedup mode, dedup time (ms; 0: none), run id or '', detail of the
--            event (JSON), expiry of the keys of a temporary queue (ms; 0: none), attempt, retries, expiry of the task (ms since 1970;
--            0: none), the same from now on (ms; 0: none)
-- Returns    per message '' or the id of the run that already holds its dedup key
local answers, woken = {}, {}

-- The tag for a message: the given one, or one of its own beside another message of the same run: a second one, or a copy of the
-- same publication in another queue. Returns nil when it is there already.
local function free_tag(tag, nonce, queue)
  local there = call('HMGET', message(tag), 'n', 'q')
  if not there[1] then return tag end
  if there[1] == nonce and there[2] == queue then return nil end
  call('HSET', message(tag), 'x', 1)
  local own = tag .. '~' .. nonce .. '~' .. queue
  if call('EXISTS', message(own)) == 1 then return nil end
  return own
end

-- The tag that holds the dedup key, '' if there is none (any more).
local function holder_of(dedup, mode)
  local holder = call('GET', key('dedup', dedup))
  if not holder then return '' end
  if mode == 'until_done' and call('EXISTS', message(holder)) == 0 then return '' end
  return holder
end

local function replace(holder, tag)
  local fields = call('HMGET', message(holder), 'q', 'i', 'a')
  if fields[1] and call('ZREM', key('delayed', fields[1]), holder) == 1 then
    call('DEL', message(holder))
    event(EVENT.cancelled, fields[2], fields[1], fields[3], '{"by":"debounce","reason":"replaced by ' .. tag .. '"}')
  end
end

-- Returns the run that is already there ('' for none) and when a debounced message is due.
local function claim(dedup, mode, span, tag, nonce)
  local holder = holder_of(dedup, mode)
  if holder ~= '' and call('HGET', message(holder), 'n') == nonce then return '', 0 end -- a copy of this publication has it
  if mode == 'debounce' then
    if holder ~= '' then replace(holder, tag) end
  elseif holder ~= '' then
    return call('HGET', message(holder), 'i') or holder, 0
  end
  if span > 0 then call('SET', key('dedup', dedup), tag, 'PX', span) else call('SET', key('dedup', dedup), tag) end
  return '', mode == 'debounce' and now + span or 0
end

local function put(at)
  local queue, tag, nonce, payload = ARGV[at + PUT.queue], ARGV[at + PUT.tag], ARGV[at + PUT.nonce], ARGV[at + PUT.payload]
  local priority, group, due, lifo = ARGV[at + PUT.priority], ARGV[at + PUT.group], tonumber(ARGV[at + PUT.due_ms]), ARGV[at + PUT.lifo] == '1'
  local dedup, mode, span = ARGV[at + PUT.dedup_key], ARGV[at + PUT.dedup_mode], tonumber(ARGV[at + PUT.dedup_ms])
  local run, detail, expiry = ARGV[at + PUT.run_id], ARGV[at + PUT.detail], tonumber(ARGV[at + PUT.expiry_ms])
  local attempt, retries = ARGV[at + PUT.attempt], ARGV[at + PUT.retries]
  local delay = tonumber(ARGV[at + PUT.delay_ms])
  if delay > 0 then due = now + delay end
  tag = free_tag(tag, nonce, queue)
  if not tag then return '' end
  if dedup ~= '' then
    local existing, quiet = claim(dedup, mode, span, tag, nonce)
    if existing ~= '' then return existing end
    due = math.max(due, quiet)
  end
  local mk = message(tag)
  call('HSET', mk, 'm', payload, 'q', queue, 'p', priority, 'i', run, 'n', nonce, 't', now, 'a', attempt)
  if group ~= '' then call('HSET', mk, 'g', group) end
  local ends, lasts = tonumber(ARGV[at + PUT.ends_ms]), tonumber(ARGV[at + PUT.lasts_ms])
  if lasts > 0 then ends = now + lasts end
  if ends > 0 then call('HSET', mk, 'e', string.format('%.0f', ends)) end
  if retries ~= '0' then call('HSET', mk, 'r', retries) end
  if dedup ~= '' and mode ~= 'throttle' then call('HSET', mk, 'k', dedup) end
  if due > now then
    call('ZADD', key('delayed', queue), due, tag)
    if call('ZRANGE', key('delayed', queue), 0, 0)[1] == tag then wake(queue) end
    event(EVENT.scheduled, run, queue, attempt, detail)
  else
    enqueue(queue, tag, priority, group, lifo, expiry == 0) -- what expires is made before its expiry is set
    if expiry == 0 then woken[queue] = true end
    event(EVENT.queued, run, queue, attempt, detail)
  end
  if expiry > 0 then
    for _, name in ipairs({ mk, key('waiting', queue), key('seq', queue), key('marker', queue) }) do call('PEXPIRE', name, expiry) end
  end
  return ''
end

for i = 3, #ARGV, PUT.count do answers[#answers + 1] = put(i) end
for queue in pairs(woken) do wake(queue) end
return answers
