"""`kubectl aurora`: AuroraDeployments of a cluster, for people."""
