"""SparkNet: the `.snet` language for Caffe networks, its compiler, a native engine and training on Spark."""

__version__ = "0.1.0"
