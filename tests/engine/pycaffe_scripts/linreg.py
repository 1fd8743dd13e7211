"""Trains the net of a file, which has a Python layer: MODEL DIRECTORY."""

import os
import sys

import caffe

model, folder = sys.argv[1:3]

caffe.set_random_seed(3)
with open(os.path.join(folder, "solver.prototxt"), "w") as f:
    f.write('net: "%s" base_lr: 0.05 lr_policy: "fixed" max_iter: 60 snapshot_prefix: "%s/linreg"' % (model, folder))
solver = caffe.SGDSolver(os.path.join(folder, "solver.prototxt"))
print([(k, v.data.shape) for k, v in solver.net.blobs.items()])
print(list(solver.net._layer_names), [layer.type for layer in solver.net.layers])

solver.net.forward()
first = solver.net.blobs["loss"].data.copy()
for _ in range(30):
    solver.step(2)
solver.net.forward()
last = solver.net.blobs["loss"].data
print(first.item() > 2 * last.item(), solver.iter)
solver.snapshot()
again = caffe.get_solver(os.path.join(folder, "solver.prototxt"))
again.restore(os.path.join(folder, "linreg_iter_60.solverstate"))
print(again.iter, (again.net.params["ipx"][0].data == solver.net.params["ipx"][0].data).all())
