-- Return a message under a lease to its queue, in the same call that ends the lease.
--
-- ARGV[3] queue, ARGV[4] tag, ARGV[5] lease
-- ARGV[6] how: 'delay' after ARGV[7] ms, 'head' of its priority now, 'stall': its process died, or its task rejected it; dead after
--         max_stalls, 'lost': its worker died with others in hand, counted as for an ended lease, 'reject': a consumer asked for it again; it is marked, and nothing is counted
-- ARGV[7] delay (ms)
-- ARGV[8] attempts to add, ARGV[9] retries to add (0 or 1)
-- ARGV[10] event or '', ARGV[11] detail of the event (JSON); the event carries the attempt that just ended
-- ARGV[12] max_stalls; -1: never dead
-- ARGV[13] reason of its death by 'stall' or 'lost'
-- Returns 1, or 0 when the lease was not ours any more: nothing was changed
local queue, tag, how = ARGV[3], ARGV[4], ARGV[6]
local mk = message(tag)
local f = call('HMGET', mk, 'd', 'g', 'p', 'i', 'a')
if f[1] ~= ARGV[5] or not end_lease(queue, tag, f[2]) then return 0 end
if ARGV[10] ~= '' then event(ARGV[10], f[4], queue, f[5], ARGV[11]) end
if ARGV[8] ~= '0' then call('HINCRBY', mk, 'a', ARGV[8]) end
if ARGV[9] ~= '0' then call('HINCRBY', mk, 'r', ARGV[9]) end
if how == 'stall' or how == 'lost' then
  stall(queue, tag, tonumber(ARGV[12]), ARGV[13], ARGV[11], how == 'stall')
elseif how == 'head' or how == 'reject' or tonumber(ARGV[7]) <= 0 then
  call('HSET', mk, 'w', now)
  if how == 'reject' then call('HSET', mk, 'v', 1) end
  enqueue(queue, tag, f[3], f[2], how ~= 'delay')
else
  call('ZADD', key('delayed', queue), now + tonumber(ARGV[7]), tag)
  if call('ZRANGE', key('delayed', queue), 0, 0)[1] == tag then wake(queue) end
end
offer(queue)
return 1
