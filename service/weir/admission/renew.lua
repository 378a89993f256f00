-- A long stream goes on: its places and its reservation live for another lease. One that is settled stays settled.
--
-- KEYS  1 key places  2 team places  3 reservation
-- ARGV  1 reservation id  2 lease (ms)  3 keep the reservation beyond its lease (ms)
-- Reply: 1 renewed, 0 there is no such reservation

local held = redis.call('GET', KEYS[3])
if not held then return 0 end
redis.call('PEXPIRE', KEYS[3], tonumber(ARGV[2]) + tonumber(ARGV[3]))
local now = redis.call('TIME')
local lease = tonumber(now[1]) * 1000000 + tonumber(now[2]) + tonumber(ARGV[2]) * 1000
local kp, tp = string.match(held, '%d+ %d%d(%d)%d%d(%d)')
for i, place in ipairs({kp, tp}) do
  if place == '1' then
    -- Not XX: a process that stalled beyond its lease lost the place, and it is still streaming.
    redis.call('ZADD', KEYS[i], lease, ARGV[1])
    if redis.call('PTTL', KEYS[i]) < tonumber(ARGV[2]) then
      redis.call('PEXPIRE', KEYS[i], tonumber(ARGV[2]) + 120000)
    end
  end
end
return 1
