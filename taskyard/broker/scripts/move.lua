-- Move a message that no worker has to another queue, or make a delayed one run now.
--
-- ARGV[3] run id
-- ARGV[4] queue to move to; '' only ends its delay
-- Returns 1, 0 when there is no such message, -1 when a worker has it, it is dead, or it is not delayed (for '')
local tag, target = ARGV[3], ARGV[4]
local mk = message(tag)
local f = call('HMGET', mk, 'q', 'p', 'g')
local queue = f[1]
if not queue then return 0 end
local due = call('ZSCORE', key('delayed', queue), tag)
if target == '' then
  if not due then return -1 end
  call('ZREM', key('delayed', queue), tag)
  enqueue(queue, tag, f[2], f[3])
elseif due then
  call('ZREM', key('delayed', queue), tag)
  call('HSET', mk, 'q', target)
  call('ZADD', key('delayed', target), due, tag)
  wake(target)
elseif leave_queue(queue, tag, f[3]) then
  call('HSET', mk, 'q', target)
  enqueue(target, tag, f[2], f[3])
else
  return -1
end
return 1
