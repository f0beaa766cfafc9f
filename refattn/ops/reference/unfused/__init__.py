"""Steps of local attention one by one: what the fused operations of edges.py are composed of."""
