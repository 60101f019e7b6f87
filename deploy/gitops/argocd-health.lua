-- Argo CD's health of an AuroraDeployment: docs/gitops.md says where it goes.
local status = obj.status or {}
local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end

local function of(health, condition)
  return {status = health, message = condition.message ~= "" and condition.message or condition.reason}
end

local function is(kind)
  return conditions[kind] ~= nil and conditions[kind].status == "True"
end

local ready = conditions.Ready
if ready == nil or (status.observedGeneration or 0) < obj.metadata.generation then
  return {status = "Progressing", message = "waiting for the operator"}
end
if is("Degraded") then
  return of("Degraded", conditions.Degraded)
end
if is("Reconciling") then
  return of("Progressing", conditions.Reconciling)
end
if is("Ready") then
  return of("Healthy", ready)
end
if ready.reason == "ScaledToZero" or ready.reason == "Suspended" then
  return of("Suspended", ready)
end
return of("Progressing", ready)
