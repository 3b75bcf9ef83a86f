"""Noise schedules and samplers as pure functions; a model is any callable."""
