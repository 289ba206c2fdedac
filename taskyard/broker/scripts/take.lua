-- Hand out up to `want` messages, each under a lease: due ones are enqueued, ended leases are taken back, pause and limits decide.
--
-- ARGV[3] length of a lease (ms)
-- ARGV[4] stalls that a message survives; -1: any number
-- ARGV[5] want
-- ARGV[6] name of the worker, for whoever asks where a message was lost
-- ARGV[7] what the worker has in hand: '' nothing, the tag of its only message, '*' several
-- ARGV[8] '1' if the worker holds suspects (messages that lost a worker) back until each can run alone
-- ARGV[9...] pairs of queue and '1' for messages that need no acknowledgement (they are deleted now)
-- Returns { ms until something may be due (-1: unknown), message... }, each message { queue, tag, lease, payload, attempt, retries,
--         stalls, cancelled by or '', run id, dead, ms it waited since it was put, due, or taken back,
--         '1' if it was rejected and requeued, workers lost with it,
--         its expiry (ms since 1970, '' for none; with '-' before it when it has expired) }, dead being {} or, for a dead letter, what it reports:
--         { tag, payload, queue, run id, attempt, workers lost, reason, facts, time of death (ms) }
local lease_ms, max_stalls, want, worker = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local in_hand, holds_suspects = ARGV[7], ARGV[8] == '1'
local FIRST_QUEUE = 9 -- the first of the pairs in ARGV
local DUE_AT_ONCE, STALLED_AT_ONCE, PARKED_AT_ONCE = 1000, 100, 200
local TOLERANCE = 20 -- ms by which a start may come early when one before it came late
local CANCELLED = 8 -- position in a message of the answer
local out, next_look = {}, -1
local asked, cancels = {}, {} -- positions in `out` whose run may have been cancelled before it had a message, and the keys that tell

local function look_again(ms)
  ms = math.max(0, math.ceil(ms))
  if next_look < 0 or ms < next_look then next_look = ms end
end

local function join_due(queue)
  local delayed = key('delayed', queue)
  local due = call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, DUE_AT_ONCE)
  if #due > 0 then
    call('ZREM', delayed, unpack(due))
    for _, tag in ipairs(due) do
      local fields = call('HMGET', message(tag), 'p', 'g')
      if fields[1] then
        call('HSET', message(tag), 'w', now)
        enqueue(queue, tag, fields[1], fields[2])
      end
    end
  end
  local first = call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
  if first[2] then look_again(tonumber(first[2]) - now) end
end

local function take_back(queue)
  local active = key('active', queue)
  for _, tag in ipairs(call('ZRANGEBYSCORE', active, '-inf', now, 'LIMIT', 0, STALLED_AT_ONCE)) do
    end_lease(queue, tag, call('HGET', message(tag), 'g'))
    if call('EXISTS', message(tag)) == 1 then
      stall(queue, tag, max_stalls, 'stalled', '{"error":"Stalled","message":"the workers that had it stopped renewing its lease"}')
    end
  end
  local first = call('ZRANGE', active, 0, 0, 'WITHSCORES')
  if first[2] then look_again(tonumber(first[2]) - now + 1) end
end

-- Source: the generic cell rate algorithm (virtual scheduling), ITU-T I.371. Returns ms to wait (0: go) and the next arrival time.
-- The tolerance is less than one interval, so no window of `per` holds more than limit + 1; it makes up for workers that ask late.
local function rate_wait(name, limit, per)
  local interval = per / limit
  local arrival = tonumber(call('GET', name) or 0)
  local wait = arrival - math.min(0.9 * interval, TOLERANCE) - now_exact
  if wait > 0 then return wait, 0 end
  return 0, math.max(now_exact, arrival) + interval
end

local function charge(name, arrival)
  call('SET', name, string.format('%.3f', arrival), 'PX', math.ceil(arrival - now_exact) + 1)
end

local function park(queue, group, until_ms)
  call('ZREM', key('turns', queue), group)
  call('ZADD', key('parked', queue), until_ms, group)
end

local function unpark(queue)
  local parked = key('parked', queue)
  for _, group in ipairs(call('ZRANGEBYSCORE', parked, '-inf', now, 'LIMIT', 0, PARKED_AT_ONCE)) do
    call('ZREM', parked, group)
    take_turn(queue, group)
  end
end

-- Whether the group's limits let it run now, and the next arrival time of its rate; one that may not is parked.
local function may_run(queue, group, limits)
  if limits.key_concurrency and call('SCARD', group_key('running', queue, group)) >= limits.key_concurrency then
    park(queue, group, 'inf')
    return false
  end
  if not limits.key_rate then return true end
  local wait, arrival = rate_wait(group_key('rate', queue, group), limits.key_rate, limits.key_per)
  if wait > 0 then park(queue, group, now + math.ceil(wait)) end
  return wait == 0, arrival
end

local function pop_from_group(queue, group, arrival)
  local tag = call('ZPOPMIN', group_key('group', queue, group))[1]
  call('ZREM', key('grouped', queue), tag)
  call('SADD', group_key('running', queue, group), tag)
  if arrival then charge(group_key('rate', queue, group), arrival) end
  take_turn(queue, group)
  return tag
end

-- Take the next tag out of the queue: a message without a group, or the first one of the group whose turn it is; nil if none may run.
local function pop(queue, limits)
  for _ = 1, PARKED_AT_ONCE do
    local single = call('ZRANGE', key('waiting', queue), 0, 0, 'WITHSCORES')
    local turn = call('ZRANGE', key('turns', queue), 0, 0, 'WITHSCORES')
    if not turn[1] or (single[1] and tonumber(single[2]) < tonumber(turn[2])) then
      if single[1] then call('ZREM', key('waiting', queue), single[1]) end
      return single[1]
    end
    local may, arrival = may_run(queue, turn[1], limits)
    if may then return pop_from_group(queue, turn[1], arrival) end
  end
  look_again(0)
end

local function report_of(tag)
  if not tag then return {} end
  local f = call('HMGET', message(tag), 'm', 'q', 'i', 'a', 's', 'fr', 'ff', 'ft', 'u')
  if not f[1] then return {} end
  local losses = tostring((f[5] or 0) + (f[9] or 0))
  return { tag, f[1], f[2], f[3] or '', f[4] or '1', losses, f[6] or '', f[7] or '', f[8] or '0' }
end

-- Adds to `leases` (words of ZADD) unless no lease is needed. Returns false when the message is gone (a temporary queue's, expired).
local function hand_out(queue, tag, no_ack, leases)
  local mk = message(tag)
  local f = call('HMGET', mk, 'm', 'a', 'r', 's', 'c', 'i', 'b', 'g', 'w', 't', 'd', 'v', 'u', 'e')
  if not f[1] then
    if has(f[8]) then call('SREM', group_key('running', queue, f[8]), tag) end
    return false
  end
  local lease, losses = 0, tonumber(f[4] or 0) + tonumber(f[13] or 0)
  if no_ack then
    call('DEL', mk)
    if has(f[8]) then call('SREM', group_key('running', queue, f[8]), tag) end
  else
    lease = tonumber(f[11] or 0) + 1
    call('HSET', mk, 'd', lease, 'l', worker)
    if holds_suspects and losses > 0 then call('HSET', mk, 'h', lease) end
    leases[#leases + 1] = now + lease_ms
    leases[#leases + 1] = tag
  end
  out[#out + 1] = { queue, tag, lease, f[1], f[2] or '1', f[3] or '0', f[4] or '0', f[5] or '', f[6] or '', report_of(f[7]),
    math.max(0, now - tonumber(f[9] or f[10] or now)), f[12] or '', losses,
    f[14] and (now > tonumber(f[14]) and '-' or '') .. f[14] or '' }
  if not f[5] and has(f[6]) then
    asked[#asked + 1] = #out
    cancels[#cancels + 1] = key('cancel', f[6])
  end
  return true
end

local function limits_of(queue)
  local f = call('HMGET', key('limits', queue), 'paused', 'until', 'concurrency', 'rate', 'per', 'key_concurrency', 'key_rate', 'key_per')
  local paused = f[1] and not (f[2] and tonumber(f[2]) <= now)
  if f[1] and not paused then call('HDEL', key('limits', queue), 'paused', 'paused_by', 'reason', 'until') end
  return { paused = paused, concurrency = tonumber(f[3]), rate = tonumber(f[4]), per = tonumber(f[5]),
    key_concurrency = tonumber(f[6]), key_rate = tonumber(f[7]), key_per = tonumber(f[8]) }
end

local function mark_cancelled()
  if #asked == 0 then return end
  for i, by in ipairs(call('MGET', unpack(cancels))) do
    if by then out[asked[i]][CANCELLED] = by end
  end
end

local function serve_plainly(queue, room, no_ack, leases)
  local popped = call('ZPOPMIN', key('waiting', queue), room)
  for i = 1, #popped, 2 do hand_out(queue, popped[i], no_ack, leases) end
end

local function serve(queue, room, no_ack)
  local limits = limits_of(queue)
  if limits.paused then return end
  local before, leases = #out, {}
  if limits.concurrency then room = math.min(room, limits.concurrency - call('ZCARD', key('active', queue))) end
  unpark(queue)
  if not limits.rate and call('EXISTS', key('turns', queue)) == 0 then
    if room > 0 then serve_plainly(queue, room, no_ack, leases) end
  else
    while room > 0 do
      local wait, arrival = 0, nil
      if limits.rate then wait, arrival = rate_wait(key('rate', queue), limits.rate, limits.per) end
      if wait > 0 then
        if call('EXISTS', key('waiting', queue), key('turns', queue)) > 0 then look_again(wait) end
        break
      end
      local tag = pop(queue, limits)
      if not tag then break end
      if hand_out(queue, tag, no_ack, leases) then
        room = room - 1
        if arrival then charge(key('rate', queue), arrival) end
      end
    end
  end
  if #leases > 0 then call('ZADD', key('active', queue), unpack(leases)) end
  local first_parked = call('ZRANGE', key('parked', queue), 0, 0, 'WITHSCORES')
  if first_parked[2] and first_parked[2] ~= 'inf' then look_again(tonumber(first_parked[2]) - now) end
  if #out > before then offer(queue) end -- one call more by another worker finds out whether a limit holds the rest
  tidy(queue)
end

-- Mark the message that is all its worker has; it no longer is when others come.
local function note_only_one()
  if in_hand == '' and #out == 1 and out[1][3] > 0 then call('HSET', message(out[1][2]), 'o', out[1][3]) end
  if has(in_hand) and in_hand ~= '*' and #out > 0 then call('HDEL', message(in_hand), 'o') end
end

local queues = (#ARGV - FIRST_QUEUE + 1) / 2
local share = math.ceil(want / queues)
for i = FIRST_QUEUE, #ARGV, 2 do
  join_due(ARGV[i])
  take_back(ARGV[i])
  if #out < want then serve(ARGV[i], math.min(share, want - #out), ARGV[i + 1] == '1') end
end
for i = FIRST_QUEUE, #ARGV, 2 do
  if queues > 1 and #out < want then serve(ARGV[i], want - #out, ARGV[i + 1] == '1') end
end
mark_cancelled()
note_only_one()
return { next_look, unpack(out) }
