-- Ask the server which of some commands the current user may not run.
--
-- ARGV[3...] per command: number of words, words
-- Returns the indexes (from 0) of those that it may not run, or that the server does not have
local missing, index, i = {}, 0, 3
if not redis.acl_check_cmd then return missing end -- the server has no such question, so nothing can be said
while i <= #ARGV do
  local count = tonumber(ARGV[i])
  local is_known, may = pcall(redis.acl_check_cmd, unpack(ARGV, i + 1, i + count))
  if not (is_known and may) then missing[#missing + 1] = index end
  index, i = index + 1, i + count + 1
end
return missing
