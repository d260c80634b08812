"""The learner: issues tickets, trains on scored groups with DeepSpeed, publishes new weights."""
