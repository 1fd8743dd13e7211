from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SparkParameter(_message.Message):
    __slots__ = ("tau", "workers", "rounds", "test_every", "snapshot_every", "momentum", "seed", "average", "deadline")
    class Momentum(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        AVERAGE: _ClassVar[SparkParameter.Momentum]
        LOCAL: _ClassVar[SparkParameter.Momentum]
        RESET: _ClassVar[SparkParameter.Momentum]
    AVERAGE: SparkParameter.Momentum
    LOCAL: SparkParameter.Momentum
    RESET: SparkParameter.Momentum
    class Strategy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        AUTO: _ClassVar[SparkParameter.Strategy]
        SPARK: _ClassVar[SparkParameter.Strategy]
        RING: _ClassVar[SparkParameter.Strategy]
    AUTO: SparkParameter.Strategy
    SPARK: SparkParameter.Strategy
    RING: SparkParameter.Strategy
    TAU_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    TEST_EVERY_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_EVERY_FIELD_NUMBER: _ClassVar[int]
    MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    AVERAGE_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    tau: int
    workers: int
    rounds: int
    test_every: int
    snapshot_every: int
    momentum: SparkParameter.Momentum
    seed: int
    average: SparkParameter.Strategy
    deadline: float
    def __init__(self, tau: _Optional[int] = ..., workers: _Optional[int] = ..., rounds: _Optional[int] = ..., test_every: _Optional[int] = ..., snapshot_every: _Optional[int] = ..., momentum: _Optional[_Union[SparkParameter.Momentum, str]] = ..., seed: _Optional[int] = ..., average: _Optional[_Union[SparkParameter.Strategy, str]] = ..., deadline: _Optional[float] = ...) -> None: ...
