"""`kubectl aurora`: inspect and steer a cluster's AuroraDeployments."""
