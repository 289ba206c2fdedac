-- Why a run is not running.
--
-- ARGV[3] run id
-- Returns {} when there is no such message, else { state, queue, position (0: next; -1: not waiting), ms until due or until its lease
--         ends, attempt, stalls, cancelled by or '', group, ms until the group's rate allows it (-1: its running ones fill its limit),
--         ms until the queue's rate allows one, active in the queue, active in the group, known consumers, limits as pairs }
local tag = ARGV[3]
local f = call('HMGET', message(tag), 'q', 'g', 'a', 's', 'c')
local queue, group = f[1], f[2] or ''
if not queue then return {} end

local function ms_left(name)
  return math.max(0, math.ceil(tonumber(call('GET', name) or 0) - now_exact))
end

local function where()
  local at = call('ZSCORE', key('delayed', queue), tag)
  if at then return 'delayed', -1, tonumber(at) - now end
  at = call('ZSCORE', key('active', queue), tag)
  if at then return 'active', -1, tonumber(at) - now end
  if call('ZSCORE', key('dead', queue), tag) then return 'dead', -1, 0 end
  local line = group == '' and key('waiting', queue) or group_key('group', queue, group)
  return 'waiting', call('ZRANK', line, tag) or -1, 0
end

local state, place, left = where()
local group_wait = 0
local parked = group ~= '' and call('ZSCORE', key('parked', queue), group)
if parked == 'inf' then group_wait = -1 elseif parked then group_wait = math.max(0, tonumber(parked) - now) end
return {
  state, queue, place, left, tonumber(f[3] or 1), tonumber(f[4] or 0), f[5] or '', group, group_wait, ms_left(key('rate', queue)),
  call('ZCARD', key('active', queue)), group ~= '' and call('SCARD', group_key('running', queue, group)) or 0,
  call('ZCOUNT', key('consumers', queue), now, '+inf'), call('HGETALL', key('limits', queue)),
}
