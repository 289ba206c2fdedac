-- Append events that belong to no move of a message.
--
-- ARGV[3...] 7 words per event: event, run id, queue, attempt, detail (JSON), tag, lease; an event of a lease that has ended is
--            not written, so one that is sent again after a lost answer cannot follow the message's end; tag '': always written
-- Returns    nothing
for i = 3, #ARGV, 7 do
  local tag = ARGV[i + 5]
  if tag == '' or (call('ZSCORE', key('active', ARGV[i + 2]), tag) and call('HGET', message(tag), 'd') == ARGV[i + 6]) then
    event(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4])
  end
end
