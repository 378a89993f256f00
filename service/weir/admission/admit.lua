-- One atomic step decides: is the key good, may it use this model, and do all limits of key and team allow it?
-- Charges all of them or none. The arithmetic is that of token_bucket.py, which this is tested against.
--
-- KEYS  1 key record  2 team record  3 key buckets  4 team buckets  5 key places  6 team places  7 reservation
-- ARGV  1 digest  2 model  3 name it was asked by  4 prompt tokens  5 output tokens per choice, -1 if open
--       6 choices  7 default output tokens  8 lease (ms)  9 keep the reservation beyond its lease (ms)
--       10 reservation id; empty: only look (nothing is charged and nothing refused)
--
-- Reply {code, ...}:
--   0 admitted  tokens, output tokens per choice, bounded, held, shadow refusals, 16 numbers of the windows
--   1 no such key   2 revoked   3 expired   4 model not allowed   0 to the key, 1 to the team
--   5 refused   which (1..6: requests, tokens, places of key, then of team), wait in us (-1 never, -2 unknown),
--               tokens needed, 16 numbers of the windows
-- Windows, for key then team: rpm, burst seconds, level, tpm, level, concurrency, taken, which of them are shadow
-- (1 requests + 2 tokens + 4 concurrency; + 8 where no model is forbidden).  -1: there is no such limit.
--
-- Written without tables and closures where it counts: Redis' Lua makes each of them cost like a command.

local PARTS = 60000000
local DAY, MARGIN = 86400000, 120000 -- ms
local call, max, min, floor, ceil = redis.call, math.max, math.min, math.floor, math.ceil
local whole = string.format -- %d is exact for every whole number here, and a third of the price of leaving it to call

local time = call('TIME')
local seconds = tonumber(time[1])
local now = seconds * 1000000 + tonumber(time[2])

local key = call('HMGET', KEYS[1], 'digest', 'state', 'expires', 'used',
  'rpm', 'tpm', 'concurrency', 'burst', 'allow', 'shadow')
local team = call('HMGET', KEYS[2], 'version', 'rpm', 'tpm', 'concurrency', 'burst', 'allow', 'shadow')
local looking = ARGV[10] == ''

-- The key ------------------------------------------------------------------------------------------------------------
if not key[1] or not team[1] then return {1} end
if key[1] ~= ARGV[1] then
  local old = call('HMGET', KEYS[1], 'old_digest', 'old_until')
  if old[1] ~= ARGV[1] then return {1} end
  if tonumber(old[2] or '0') <= seconds then return {3} end
end
if key[2] ~= 'active' then return {2} end
if key[3] and key[3] ~= '0' and tonumber(key[3]) <= seconds then return {3} end

-- The model ----------------------------------------------------------------------------------------------------------
-- `allow` holds one glob a line, cut at its stars into Lua patterns when the record was written (records.py): each is
-- found as early as it can be, behind the one before.
if not looking and ((key[9] or '') ~= '' or (team[6] or '') ~= '') then
  local function fits(name, glob)
    local from = 1
    for piece in string.gmatch(glob, '[^*]+') do
      local _, last = string.find(name, piece, from)
      if not last then return false end
      from = last + 1
    end
    return true
  end
  local function allows(globs)
    if not globs or globs == '' then return true end
    for glob in string.gmatch(globs, '[^\n]+') do
      if fits(ARGV[2], glob) or fits(ARGV[3], glob) then return true end
    end
    return false
  end
  if not allows(key[9]) then return {4, 0} end
  if not allows(team[6]) then return {4, 1} end
end

-- The limits as they stand -------------------------------------------------------------------------------------------
local k_bits, t_bits = 0, 0
if (key[10] or '') ~= '' or (team[7] or '') ~= '' then
  local function shadow_bits(names)
    names = names or ''
    return (string.find(names, 'requests', 1, true) and 1 or 0) + (string.find(names, 'tokens', 1, true) and 2 or 0)
      + (string.find(names, 'concurrency', 1, true) and 4 or 0)
  end
  k_bits, t_bits = shadow_bits(key[10]), shadow_bits(team[7])
end
if (key[9] or '') == '' then k_bits = k_bits + 8 end
if (team[6] or '') == '' then t_bits = t_bits + 8 end
local function bit(bits, which)
  return floor(bits / which) % 2 == 1
end

-- A scope's buckets at `at`: levels r of requests and t of tokens, with their capacities; nil where there is no limit.
local function stands(rpm, tpm, burst, use)
  if not (rpm or tpm) then
    call('DEL', use) -- limits that are gone take their levels with them
    return nil, nil, nil, nil, now, false
  end
  local b = call('HMGET', use, 'r', 't', 'at')
  local since = tonumber(b[3] or now)
  -- A failover may show an older clock: time never runs backwards here.
  local at = max(now, since)
  local r, r_full, t, t_full
  if rpm then
    r_full = max(rpm * burst * 1000000, PARTS)
    r = b[1] and min(r_full, tonumber(b[1]) + (at - since) * rpm) or r_full
  elseif b[1] then
    call('HDEL', use, 'r')
  end
  if tpm then
    t_full = max(tpm * burst * 1000000, PARTS)
    t = b[2] and min(t_full, tonumber(b[2]) + (at - since) * tpm) or t_full
  elseif b[2] then
    call('HDEL', use, 't')
  end
  return r, r_full, t, t_full, at, not b[3]
end
-- A lease that ended is no place taken; when the sets are tended, those are swept out.
local after_now = whole('(%d', now)
local function taken(places, live)
  return places and call('ZCOUNT', live, after_now, '+inf') or -1
end

local k_rpm, k_tpm, k_places, k_burst = tonumber(key[5]), tonumber(key[6]), tonumber(key[7]), tonumber(key[8])
local t_rpm, t_tpm, t_places, t_burst = tonumber(team[2]), tonumber(team[3]), tonumber(team[4]), tonumber(team[5])
local kr, krf, kt, ktf, k_at, k_new = stands(k_rpm, k_tpm, k_burst, KEYS[3])
local tr, trf, tt, ttf, t_at, t_new = stands(t_rpm, t_tpm, t_burst, KEYS[4])
local k_taken, t_taken = taken(k_places, KEYS[5]), taken(t_places, KEYS[6])

if looking then
  return {0, 0, 0, 0, 0, 0, k_rpm or -1, k_burst, kr or -1, k_tpm or -1, kt or -1, k_places or -1, k_taken, k_bits,
    t_rpm or -1, t_burst, tr or -1, t_tpm or -1, tt or -1, t_places or -1, t_taken, t_bits}
end

-- What it costs ------------------------------------------------------------------------------------------------------
local prompt, output, choices = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local k_bounds, t_bounds = kt and not bit(k_bits, 2), tt and not bit(t_bits, 2)
if output < 0 then
  -- Nobody said how much: the default, cut to what the smallest bucket can ever hold.
  output = tonumber(ARGV[7])
  local smallest = min(k_bounds and floor(ktf / PARTS) or math.huge, t_bounds and floor(ttf / PARTS) or math.huge)
  if prompt + output * choices > smallest then
    output = max(floor((smallest - prompt) / choices), 1)
  end
end
local tokens = prompt + output * choices
local parts = tokens * PARTS

-- May it pass? -------------------------------------------------------------------------------------------------------
-- The refusal that counts is the one that lasts longest; one that waiting cannot help comes before all others. A limit
-- in shadow that would refuse is noted and not charged.
local which, wait, shadow = 0, -3, 0
local k_req, k_tok, k_place = kr ~= nil, kt ~= nil, k_places ~= nil
local t_req, t_tok, t_place = tr ~= nil, tt ~= nil, t_places ~= nil
local function refuse(place, in_shadow, us)
  if in_shadow then
    shadow = shadow + 2 ^ (place - 1)
    return false
  end
  if us > wait then which, wait = place, us end
  return true
end
if k_req and kr < PARTS then k_req = refuse(1, bit(k_bits, 1), ceil((PARTS - kr) / k_rpm)) end
if k_tok and kt < parts then k_tok = refuse(2, bit(k_bits, 2), parts > ktf and math.huge or ceil((parts - kt) / k_tpm)) end
if k_place and k_taken >= k_places then k_place = refuse(3, bit(k_bits, 4), -2) end
if t_req and tr < PARTS then t_req = refuse(4, bit(t_bits, 1), ceil((PARTS - tr) / t_rpm)) end
if t_tok and tt < parts then t_tok = refuse(5, bit(t_bits, 2), parts > ttf and math.huge or ceil((parts - tt) / t_tpm)) end
if t_place and t_taken >= t_places then t_place = refuse(6, bit(t_bits, 4), -2) end
if which > 0 then
  return {5, which, wait == math.huge and -1 or wait, tokens,
    k_rpm or -1, k_burst, kr or -1, k_tpm or -1, kt or -1, k_places or -1, k_taken, k_bits,
    t_rpm or -1, t_burst, tr or -1, t_tpm or -1, tt or -1, t_places or -1, t_taken, t_bits}
end

-- Charge -------------------------------------------------------------------------------------------------------------
-- Once a minute a key's last use is noted, and its buckets are given time to live: a day, the longest burst there is,
-- so that none is forgotten before it would be full under whatever limits come; and longer where there is debt.
local tend = seconds - tonumber(key[4] or '0') >= 60
if tend then call('HSET', KEYS[1], 'used', seconds) end

local function store(use, r, rf, rpm, t, tf, tpm, at, new)
  if r and t then
    call('HSET', use, 'r', whole('%d', r), 't', whole('%d', t), 'at', whole('%d', at))
  elseif r then
    call('HSET', use, 'r', whole('%d', r), 'at', whole('%d', at))
  elseif t then
    call('HSET', use, 't', whole('%d', t), 'at', whole('%d', at))
  else
    return
  end
  if new or tend or (t and t < 0) then
    local full_in = max(DAY, t and (tf - t) / tpm / 1000 or 0, r and (rf - r) / rpm / 1000 or 0)
    call('PEXPIRE', use, ceil(full_in) + MARGIN)
  end
end
if k_req then kr = kr - PARTS end
if k_tok then kt = kt - parts end
if t_req then tr = tr - PARTS end
if t_tok then tt = tt - parts end
store(KEYS[3], kr, krf, k_rpm, kt, ktf, k_tpm, k_at, k_new)
store(KEYS[4], tr, trf, t_rpm, tt, ttf, t_tpm, t_at, t_new)

local lease_ms = tonumber(ARGV[8])
local lease = whole('%d', now + lease_ms * 1000)
-- A set of places lives for longer than a day after its first lease and after each tending, so no lease in it is lost;
-- where there is no limit any more there is no set, or it could be found again near its end.
local keep_ms = max(DAY, lease_ms) + MARGIN
if tend then
  call('ZREMRANGEBYSCORE', KEYS[5], '-inf', whole('%d', now))
  call('ZREMRANGEBYSCORE', KEYS[6], '-inf', whole('%d', now))
end
if k_place then
  call('ZADD', KEYS[5], lease, ARGV[10])
  if tend or k_taken == 0 then call('PEXPIRE', KEYS[5], keep_ms) end
  k_taken = k_taken + 1
elseif tend and not k_places then
  call('DEL', KEYS[5])
end
if t_place then
  call('ZADD', KEYS[6], lease, ARGV[10])
  if tend or t_taken == 0 then call('PEXPIRE', KEYS[6], keep_ms) end
  t_taken = t_taken + 1
elseif tend and not t_places then
  call('DEL', KEYS[6])
end

local held = 0
if k_req or k_tok or k_place or t_req or t_tok or t_place then
  held = 1
  call('SET', KEYS[7], tokens .. (k_req and ' 1' or ' 0') .. (k_tok and '1' or '0') .. (k_place and '1' or '0')
    .. (t_req and '1' or '0') .. (t_tok and '1' or '0') .. (t_place and '1' or '0'), 'PX', lease_ms + tonumber(ARGV[9]))
end
return {0, tokens, output, (k_bounds or t_bounds) and 1 or 0, held, shadow,
  k_rpm or -1, k_burst, kr or -1, k_tpm or -1, kt or -1, k_places or -1, k_taken, k_bits,
  t_rpm or -1, t_burst, tr or -1, t_tpm or -1, tt or -1, t_places or -1, t_taken, t_bits}
