-- Remove messages that no worker has: the next ones of the given sorted sets.
--
-- ARGV[3] queue, ARGV[4] by whom and why (JSON, the detail of the events), ARGV[5] at most so many
-- ARGV[6...] waiting, grouped, delayed, dead
-- Returns how many were removed
local queue, left = ARGV[3], tonumber(ARGV[5])
for i = 6, #ARGV do
  local tags = left > 0 and call('ZRANGE', key(ARGV[i], queue), 0, left - 1) or {}
  for _, tag in ipairs(tags) do
    local f = call('HMGET', message(tag), 'i', 'a', 'g', 'k')
    if ARGV[i] == 'waiting' or ARGV[i] == 'grouped' then
      leave_queue(queue, tag, ARGV[i] == 'grouped' and f[3] or '')
    else
      call('ZREM', key(ARGV[i], queue), tag)
    end
    call('DEL', message(tag))
    free_dedup(f[4], tag)
    if ARGV[i] ~= 'dead' then event(EVENT.cancelled, f[1], queue, f[2], ARGV[4]) end
  end
  left = left - #tags
end
return tonumber(ARGV[5]) - left
