"""The messages: Caffe's own (`caffe_pb2`), the averaging loop's (`sparknet_pb2`), weights as bytes (`weights_pb2`)."""
