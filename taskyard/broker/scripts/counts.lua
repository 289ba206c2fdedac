-- Count one queue.
--
-- ARGV[3] queue
-- Returns { waiting, delayed, active, dead, put at of the message first in the queue (ms; 0: none), now (ms), known consumers, limits as pairs }
local queue = ARGV[3]
local waiting = call('ZCARD', key('waiting', queue)) + call('ZCARD', key('grouped', queue))
local oldest = 0
for _, kind in ipairs({ 'waiting', 'grouped' }) do
  local first = call('ZRANGE', key(kind, queue), 0, 0)[1]
  local at = first and tonumber(call('HGET', message(first), 't') or 0) or 0
  if at > 0 and (oldest == 0 or at < oldest) then oldest = at end
end
return {
  waiting, call('ZCARD', key('delayed', queue)), call('ZCARD', key('active', queue)), call('ZCARD', key('dead', queue)),
  oldest, now, call('ZCOUNT', key('consumers', queue), now, '+inf'), call('HGETALL', key('limits', queue)),
}
