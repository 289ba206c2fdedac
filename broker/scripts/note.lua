-- Append events that belong to no move of a message.
--
-- ARGV[3...] 5 words per event: event, run id, queue, attempt, detail (JSON)
-- Returns    nothing
for i = 3, #ARGV, 5 do event(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]) end
