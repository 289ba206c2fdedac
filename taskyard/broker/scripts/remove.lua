-- Remove a message that no worker has.
--
-- ARGV[3] run id, ARGV[4] by whom and why (JSON, the detail of the event)
-- Returns 1, 0 when there is no such message, -1 when a worker has it
local tag = ARGV[3]
local mk = message(tag)
local f = call('HMGET', mk, 'q', 'g', 'k', 'i', 'a')
local queue = f[1]
if not queue then return 0 end
local was_dead = call('ZREM', key('dead', queue), tag) == 1
if not (was_dead or call('ZREM', key('delayed', queue), tag) == 1 or leave_queue(queue, tag, f[2])) then return -1 end
call('DEL', mk)
free_dedup(f[3], tag)
if not was_dead then event(EVENT.cancelled, f[4], queue, f[5], ARGV[4]) end
return 1
