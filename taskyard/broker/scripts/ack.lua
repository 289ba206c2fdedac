-- End messages whose work is over: lease, message and dedup key go, the outcome is written, a dead letter takes what it reported with it.
--
-- ARGV[3...] 6 words per message: queue, tag, lease, event or '', detail of the event (JSON), detail of a `started` event that
--            comes before it or ''
-- Returns    the indexes (from 0) of those that were not ours any more: the lease had ended, nothing was changed
local lost, queues, gone = {}, {}, {}
for i = 3, #ARGV, 6 do
  local queue, tag, outcome, started = ARGV[i], ARGV[i + 1], ARGV[i + 3], ARGV[i + 5]
  local mk = message(tag)
  local f = call('HMGET', mk, 'd', 'g', 'k', 'i', 'a', 'b')
  if f[1] == ARGV[i + 2] and end_lease(queue, tag, f[2]) then
    gone[#gone + 1] = mk
    free_dedup(f[3], tag)
    if started ~= '' then event(EVENT.started, f[4], queue, f[5], started) end
    if outcome ~= '' then event(outcome, f[4], queue, f[5], ARGV[i + 4]) end
    if f[6] then
      local buried_in = call('HGET', message(f[6]), 'q')
      if buried_in and call('ZREM', key('dead', buried_in), f[6]) == 1 then gone[#gone + 1] = message(f[6]) end
    end
    queues[queue] = true
  else
    lost[#lost + 1] = (i - 3) / 6
  end
end
if #gone > 0 then call('DEL', unpack(gone)) end
for queue in pairs(queues) do offer(queue) end
return lost
