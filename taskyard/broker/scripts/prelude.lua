-- The first part of every script, after the tables EVENT and PUT of shared_names.py: clock, names of keys, events, and the moves between the sorted sets of a queue.
--
-- KEYS[1] the prefix itself: routes the script to the slot of the prefix's hash tag, if it has one
-- ARGV[1] prefix of all keys
-- ARGV[2] 1 writes events, 0 writes none. The stream is trimmed only by the history's writer, by what is in SQL
--
-- <prefix>message:<tag>    hash     one message: m payload, q queue, p priority, g group, i run id, n nonce of the put, t put at (ms),
--                                   w waits since (ms), if not since it was put,
--                                   a attempt, r retries, s stalls, u workers lost that do not count as stalls, d number of the lease, l who took it last,
--                                   h number of the lease under which its worker holds it back, o number of the lease under which it is the only message of its worker,
--                                   k dedup key, c cancelled by, e expiry (ms),
--                                   x 1 if the run has other messages (copies in other queues), v 1 if it was rejected and requeued,
--                                   b tag of the dead message that this dead letter reports, fr/ff/ft reason, facts and time (ms) of its death
-- <prefix>waiting:<queue>  zset     tag -> position; messages without a group
-- <prefix>grouped:<queue>  zset     tag -> position; messages with a group
-- <prefix>group:<queue>:<group>     zset: the same tags, of one group
-- <prefix>turns:<queue>    zset     group -> position of its next message; groups that may run
-- <prefix>parked:<queue>   zset     group -> ms at which it may run again; inf: when one of its leases ends
-- <prefix>running:<queue>:<group>   set of tags under a lease
-- <prefix>delayed:<queue>  zset     tag -> due (ms)
-- <prefix>active:<queue>   zset     tag -> end of its lease (ms)
-- <prefix>dead:<queue>     zset     tag -> time of death (ms)
-- <prefix>seq:<queue>      string   counter of positions; deleted when the queue is empty
-- <prefix>marker:<queue>   zset     one member that wakes a blocked consumer
-- <prefix>limits:<queue>   hash     paused, paused_by, reason, until, concurrency, rate, per, key_concurrency, key_rate, key_per
-- <prefix>rate:<queue>[:<group>]    string: theoretical arrival time of the rate limit (ms), expires
-- <prefix>consumers:<queue> zset    worker -> ms until which it is known to listen, expires
-- <prefix>dedup:<key>      string   tag of the message that holds the key
-- <prefix>cancel:<run id>  string   who cancelled a run that had no message yet, expires
-- <prefix>events           stream   e event, id run, q queue, n attempt, at ms, d JSON
--
-- A position is (9 - priority) * BAND + sequence, so lower goes first; at the head of its priority it is - sequence.
local P, writes_events = ARGV[1], ARGV[2] == '1'
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local now_exact = time[1] * 1000 + time[2] / 1000
local BAND = 1e13
local DEAD_LETTERS = 'dead-letter'
local UNCOUNTED = 10 -- workers beyond max_stalls that a message may lose in all

local function message(tag) return P .. 'message:' .. tag end
local function key(kind, queue) return P .. kind .. ':' .. queue end
local function group_key(kind, queue, group) return P .. kind .. ':' .. queue .. ':' .. group end
local function has(value) return value and value ~= '' end
local function wake(queue) call('ZADD', key('marker', queue), 0, '0') end

local function event(kind, run, queue, attempt, detail)
  if writes_events and has(run) then
    call('XADD', P .. 'events', '*', 'e', kind, 'id', run, 'q', queue, 'n', attempt or 1, 'at', now, 'd', detail or '')
  end
end

local function band_of(place) return math.floor((tonumber(place) + BAND / 2) / BAND) end

-- Give a group its next turn, after the others of its first message's priority.
local function take_turn(queue, group)
  local first = call('ZRANGE', group_key('group', queue, group), 0, 0, 'WITHSCORES')
  if first[2] then
    call('ZADD', key('turns', queue), band_of(first[2]) * BAND + call('INCR', key('seq', queue)), group)
  else
    call('ZREM', key('turns', queue), group)
  end
end

-- `is_quiet`: the caller wakes a consumer itself, once for many.
local function enqueue(queue, tag, priority, group, at_head, is_quiet)
  local place = call('INCR', key('seq', queue))
  local score = (9 - tonumber(priority or 5)) * BAND + (at_head and -place or place)
  if has(group) then
    call('ZADD', key('grouped', queue), score, tag)
    call('ZADD', group_key('group', queue, group), score, tag)
    if not call('ZSCORE', key('parked', queue), group) then call('ZADD', key('turns', queue), 'LT', score, group) end
  else
    call('ZADD', key('waiting', queue), score, tag)
  end
  if not is_quiet then wake(queue) end
end

-- Delete what an empty queue does not need.
local function tidy(queue)
  if call('EXISTS', key('waiting', queue), key('grouped', queue)) == 0 then
    call('DEL', key('seq', queue), key('marker', queue), key('turns', queue), key('parked', queue))
  end
end

-- After its first message went without a turn: the next one may have a lower priority.
local function correct_turn(queue, group, members)
  local turn = call('ZSCORE', key('turns', queue), group)
  local first = call('ZRANGE', members, 0, 0, 'WITHSCORES')
  if turn and band_of(turn) ~= band_of(first[2]) then take_turn(queue, group) end
end

local function leave_queue(queue, tag, group)
  if not has(group) then
    if call('ZREM', key('waiting', queue), tag) == 0 then return false end
  else
    if call('ZREM', key('grouped', queue), tag) == 0 then return false end
    local members = group_key('group', queue, group)
    call('ZREM', members, tag)
    if call('EXISTS', members) == 0 then
      call('ZREM', key('turns', queue), group)
      call('ZREM', key('parked', queue), group)
    else
      correct_turn(queue, group, members)
    end
  end
  tidy(queue)
  return true
end

-- True if the message was under a lease; a group that waited for the end of one may run again.
local function end_lease(queue, tag, group)
  if call('ZREM', key('active', queue), tag) == 0 then return false end
  if has(group) then
    call('SREM', group_key('running', queue, group), tag)
    if call('ZSCORE', key('parked', queue), group) == 'inf' then
      call('ZREM', key('parked', queue), group)
      take_turn(queue, group)
    end
  end
  return true
end

local function free_dedup(dedup, tag)
  if has(dedup) and call('GET', key('dedup', dedup)) == tag then call('DEL', key('dedup', dedup)) end
end

-- Wake a consumer if a slot that just came free can be used.
local function offer(queue)
  if call('EXISTS', key('waiting', queue), key('turns', queue)) > 0 then wake(queue) end
end

-- Move a message that is nowhere now to the dead ones, and send the dead letter that reports it.
local function bury(queue, tag, reason, facts)
  local fields = call('HMGET', message(tag), 'i', 'a', 'k')
  local run, attempt = fields[1], fields[2] or '1'
  free_dedup(fields[3], tag)
  call('ZADD', key('dead', queue), now, tag)
  call('HSET', message(tag), 'fr', reason, 'ff', facts, 'ft', now)
  event(EVENT.failed, run, queue, attempt, facts)
  local report = 'bury-' .. tag .. '-' .. attempt
  call('HSET', message(report), 'm', '{}', 'q', DEAD_LETTERS, 'p', 5, 'i', report, 't', now, 'b', tag)
  enqueue(DEAD_LETTERS, report, 5)
  event(EVENT.queued, report, DEAD_LETTERS, 1, '{"task":"dead_letter.bury"}')
end

-- Whether a worker's death counts as a stall of a message that it had. Not if the message only waited there; and the first death counts
-- only if the worker had no other message: else it makes all of them suspects, and each then runs alone.
local function counts_as_stall(mk, max_stalls)
  local f = call('HMGET', mk, 'd', 'h', 'o', 's', 'u')
  if f[2] == f[1] then return false end
  return f[3] == f[1] or max_stalls == 0 or tonumber(f[4] or 0) + tonumber(f[5] or 0) > 0
end

-- A lease ended without an answer: back to the head of the queue, or dead after more than max_stalls, or after so many lost workers that
-- it must be what ends them, though it was never alone. A dead letter waits for ever.
local function stall(queue, tag, max_stalls, reason, facts, is_certain)
  local mk = message(tag)
  call('HINCRBY', mk, (is_certain or counts_as_stall(mk, max_stalls)) and 's' or 'u', 1)
  local fields = call('HMGET', mk, 'i', 'a', 'p', 'g', 'b', 'l', 's', 'u')
  local stalls, uncounted = tonumber(fields[7] or 0), tonumber(fields[8] or 0)
  event(EVENT.stalled, fields[1], queue, fields[2], cjson.encode({ stalls = stalls, reason = reason, worker = fields[6] or nil }))
  local is_over = stalls > max_stalls or stalls + uncounted > max_stalls + UNCOUNTED
  if max_stalls >= 0 and is_over and not fields[5] then
    bury(queue, tag, reason, facts)
  else
    call('HSET', mk, 'w', now)
    enqueue(queue, tag, fields[3], fields[4], true)
  end
end
