-- A request ended: charge what it used, give back the rest, free its place. The reservation goes with it, so a second
-- delivery finds nothing and changes nothing.
--
-- KEYS  1 key record  2 team record  3 key buckets  4 team buckets  5 key places  6 team places  7 reservation
-- ARGV  1 reservation id  2 tokens used; -1: nothing at all, the request itself goes back too
-- Reply: 1 settled, 0 there was nothing to settle

local PARTS = 60000000
local DAY, MARGIN = 86400000, 120000 -- ms
local call = redis.call

local held = call('GETDEL', KEYS[7])
if not held then return 0 end
local tokens, kr, kt, kp, tr, tt, tp = string.match(held, '(%d+) (%d)(%d)(%d)(%d)(%d)(%d)')
if kp == '1' then call('ZREM', KEYS[5], ARGV[1]) end
if tp == '1' then call('ZREM', KEYS[6], ARGV[1]) end

-- More was used than reserved: debt. The bucket is brought up to now first, or what it could not hold would pay for it;
-- no bucket is a full one.
local function owe(record, use, units)
  local l = call('HMGET', record, 'rpm', 'tpm', 'burst')
  local rpm, tpm, burst = tonumber(l[1] or ''), tonumber(l[2] or ''), tonumber(l[3] or '60')
  if not tpm then return end
  local time = call('TIME')
  local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
  local b = call('HMGET', use, 'r', 't', 'at')
  local since = tonumber(b[3] or now)
  local at = math.max(now, since)
  local full = math.max(tpm * burst * 1000000, PARTS)
  local t = (b[2] and math.min(full, tonumber(b[2]) + (at - since) * tpm) or full) + units * PARTS
  call('HSET', use, 't', string.format('%d', t), 'at', string.format('%d', at))
  if rpm and b[1] then
    local r = math.min(math.max(rpm * burst * 1000000, PARTS), tonumber(b[1]) + (at - since) * rpm)
    call('HSET', use, 'r', string.format('%d', r))
  end
  local ttl = math.max(DAY, math.ceil((full - t) / tpm / 1000)) + MARGIN
  if call('PTTL', use) < ttl then call('PEXPIRE', use, ttl) end
end
-- Giving back may lift the stored level above the capacity; whoever reads it next cuts it. Only tokens can be owed.
local function move(record, use, level, units)
  if units < 0 then
    owe(record, use, units)
  elseif units > 0 and call('HEXISTS', use, level) == 1 then
    call('HINCRBY', use, level, string.format('%d', units * PARTS))
  end
end
local used = tonumber(ARGV[2])
local back = tonumber(tokens) - math.max(used, 0)
if kt == '1' then move(KEYS[1], KEYS[3], 't', back) end
if tt == '1' then move(KEYS[2], KEYS[4], 't', back) end
if used < 0 then
  if kr == '1' then move(KEYS[1], KEYS[3], 'r', 1) end
  if tr == '1' then move(KEYS[2], KEYS[4], 'r', 1) end
end
return 1
