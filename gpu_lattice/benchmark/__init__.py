"""How fast a model is here, beside its own tool: what `gpu-lattice bench` and `python -m bench` share."""
