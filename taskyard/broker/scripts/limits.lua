-- Change the limits of a queue, or pause it.
--
-- ARGV[3] queue
-- ARGV[4...] pairs of field and value; '' removes the field
-- Returns nothing
local queue = ARGV[3]
for i = 4, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    call('HDEL', key('limits', queue), ARGV[i])
  else
    call('HSET', key('limits', queue), ARGV[i], ARGV[i + 1])
  end
end
for _, group in ipairs(call('ZRANGE', key('parked', queue), 0, -1)) do -- a wider limit may let them run now
  call('ZREM', key('parked', queue), group)
  take_turn(queue, group)
end
offer(queue)
