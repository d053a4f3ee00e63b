"""What a Prefect server needs to run the flows: deployments, limits, automations, and the ways to start it all."""
