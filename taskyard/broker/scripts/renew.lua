-- Lengthen leases, and say which workers listen to which queues.
--
-- ARGV[3] length of a lease (ms)
-- ARGV[4] name of the worker
-- ARGV[5] number of queues that follow, each a word
-- then    3 words per message: queue, tag, lease
-- Returns the indexes (from 0) of the messages whose lease was lost
local lease_ms, queues = tonumber(ARGV[3]), tonumber(ARGV[5])
for i = 6, 5 + queues do
  local consumers = key('consumers', ARGV[i])
  call('ZREMRANGEBYSCORE', consumers, '-inf', now)
  call('ZADD', consumers, now + lease_ms, ARGV[4])
  call('PEXPIRE', consumers, lease_ms)
end
local lost = {}
for i = 6 + queues, #ARGV, 3 do
  local active, tag = key('active', ARGV[i]), ARGV[i + 1]
  if call('ZSCORE', active, tag) and call('HGET', message(tag), 'd') == ARGV[i + 2] then
    call('ZADD', active, now + lease_ms, tag)
  else
    lost[#lost + 1] = (i - 6 - queues) / 3
  end
end
return lost
