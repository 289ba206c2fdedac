-- End messages whose work is over: lease, message and dedup key go, the outcome is written, a letter takes what it reported with it.
--
-- ARGV[3...] 5 words per message: queue, tag, lease, event or '', detail of the event (JSON)
-- Returns    the indexes (from 0) of those that were not ours any more: the lease had ended, nothing was changed
local lost, queues = {}, {}
for i = 3, #ARGV, 5 do
  local queue, tag, lease = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local mk = message(tag)
  local f = call('HMGET', mk, 'd', 'g', 'k', 'i', 'a', 'b')
  if f[1] == lease and end_lease(queue, tag, f[2]) then
    call('DEL', mk)
    free_dedup(f[3], tag)
    if ARGV[i + 3] ~= '' then event(ARGV[i + 3], f[4], queue, f[5], ARGV[i + 4]) end
    if f[6] then
      local buried_in = call('HGET', message(f[6]), 'q')
      if buried_in and call('ZREM', key('dead', buried_in), f[6]) == 1 then call('DEL', message(f[6])) end
    end
    queues[queue] = true
  else
    lost[#lost + 1] = (i - 3) / 5
  end
end
for queue in pairs(queues) do offer(queue) end
return lost
