"""Makes CaffeNet fully convolutional: MODEL WEIGHTS FULL_CONV_MODEL IMAGE OUTPUT."""

import sys

import caffe
import numpy as np

model, weights, full_conv_model, image_file, result = sys.argv[1:6]

net = caffe.Net(model, weights, caffe.TEST)
params = ["fc6", "fc7", "fc8"]
fc_params = {name: (net.params[name][0].data, net.params[name][1].data) for name in params}
for name in params:
    print(
        "%s weights are %s dimensional and biases are %s" % (name, fc_params[name][0].shape, fc_params[name][1].shape)
    )

net_full_conv = caffe.Net(full_conv_model, weights, caffe.TEST)
params_full_conv = ["fc6-conv", "fc7-conv", "fc8-conv"]
conv_params = {
    name: (net_full_conv.params[name][0].data, net_full_conv.params[name][1].data) for name in params_full_conv
}

# Fully connected weights are convolutions over the whole of their input.
for name, name_conv in zip(params, params_full_conv):
    conv_params[name_conv][0].flat = fc_params[name][0].flat
    conv_params[name_conv][1][...] = fc_params[name][1]
net_full_conv.save(result)

image = caffe.io.load_image(image_file)
transformer = caffe.io.Transformer({"data": net_full_conv.blobs["data"].data.shape})
transformer.set_transpose("data", (2, 0, 1))
transformer.set_channel_swap("data", (2, 1, 0))
transformer.set_raw_scale("data", 255.0)
data = np.asarray([transformer.preprocess("data", image)])
out = net_full_conv.forward_all(data=data)
print(out["prob"][0].argmax(axis=0).shape)

# On one window both say the same.
window = data[:, :, :227, :227]
net.blobs["data"].reshape(*window.shape)
net_full_conv.blobs["data"].reshape(*window.shape)
net.reshape()
net_full_conv.reshape()
one = net.forward(data=window)["prob"][0]
same = net_full_conv.forward(data=window)["prob"][0, :, 0, 0]
print("largest difference %.3g of %.3g" % (abs(one - same).max(), one.max()))
