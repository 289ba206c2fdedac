-- Move a message under a lease to the dead ones, with a dead letter that reports it.
--
-- ARGV[3] queue, ARGV[4] tag, ARGV[5] lease, ARGV[6] reason, ARGV[7] facts (JSON)
-- Returns 1, or 0 when the lease was not ours any more: nothing was changed
local queue, tag = ARGV[3], ARGV[4]
local f = call('HMGET', message(tag), 'd', 'g', 'b')
if f[1] ~= ARGV[5] or not end_lease(queue, tag, f[2]) then return 0 end
if f[3] then
  enqueue(queue, tag, 5) -- a dead letter is never buried itself
else
  bury(queue, tag, ARGV[6], ARGV[7])
end
offer(queue)
return 1
