-- Mark runs as cancelled, wherever they are: no worker starts them any more. A delayed one comes to the head, to be recorded soon.
--
-- ARGV[3] who and why (JSON), ARGV[4] how long an unknown id is remembered (ms)
-- ARGV[5...] run ids
-- Returns per id: waiting, delayed, active, dead or unknown
local answers = {}
for i = 5, #ARGV do
  local run = ARGV[i]
  local f = call('HMGET', message(run), 'q', 'p', 'g', 'x')
  local queue = f[1]
  if f[4] then call('SET', key('cancel', run), ARGV[3], 'PX', ARGV[4]) end -- its copies in other queues ask for this
  if not queue then
    call('SET', key('cancel', run), ARGV[3], 'PX', ARGV[4])
    answers[#answers + 1] = 'unknown'
  elseif call('ZSCORE', key('dead', queue), run) then
    answers[#answers + 1] = 'dead'
  else
    call('HSET', message(run), 'c', ARGV[3])
    if call('ZREM', key('delayed', queue), run) == 1 then
      enqueue(queue, run, f[2], f[3], true)
      answers[#answers + 1] = 'delayed'
    else
      answers[#answers + 1] = call('ZSCORE', key('active', queue), run) and 'active' or 'waiting'
    end
  end
end
return answers
