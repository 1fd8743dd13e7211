"""Prints the five classes that CaffeNet finds most likely: MODEL WEIGHTS IMAGE."""

import sys

import caffe
import numpy as np

model, weights, image_file = sys.argv[1:4]

caffe.set_mode_cpu()
net = caffe.Net(model, weights, caffe.TEST)

transformer = caffe.io.Transformer({"data": net.blobs["data"].data.shape})
transformer.set_transpose("data", (2, 0, 1))
transformer.set_mean("data", np.array([104.0, 117.0, 123.0]))
transformer.set_raw_scale("data", 255)
transformer.set_channel_swap("data", (2, 1, 0))

net.blobs["data"].reshape(1, 3, 227, 227)
image = caffe.io.load_image(image_file)
net.blobs["data"].data[...] = transformer.preprocess("data", image)

output = net.forward()
prob = output["prob"][0]
assert prob.shape == (1000,)
assert abs(prob.sum() - 1) < 1e-4

for place in prob.argsort()[::-1][:5]:
    print(place, "%.6g" % prob[place])
