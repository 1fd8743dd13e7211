"""Caffe's messages, where pycaffe has them."""

from ..proto import caffe_pb2 as caffe_pb2
