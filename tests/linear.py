"""A small classifier of digits, for the tests of Spark ML and of sparknet-predict."""

LINEAR = """
option rate = 0.1
net linear {
  data, label: RDDData([[16, 1, 8, 8], [16]], source="digits:", scale=1/16) @train
  data, label: RDDData([[50, 1, 8, 8], [50]], source="digits:", scale=1/16) @test
  data -> hidden: InnerProduct(20, weight_filler=xavier) -> relu: ReLU! -> ip: InnerProduct(10, weight_filler=xavier)
  ip, label -> loss: SoftmaxWithLoss
}
solver (base_lr=rate, lr_policy="fixed", momentum=0.9, max_iter=60, random_seed=3)
spark (tau=20, workers=2, average=SPARK)
"""
