"""The hot path: a layer's means and trajectories, by the fastest backend that can run it.

Start at ``transition``. It asks ``dispatch`` for a backend: ``fused`` (torch's kernels), ``scan`` (an explicit
gradient, with each cell's equations in ``scan_cells``), or its own loop over ``cells``. ``matmul`` has the products,
and ``softmax`` the categorical read-out.
"""
