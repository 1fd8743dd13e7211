from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SparkParameter(_message.Message):
    __slots__ = ("tau", "workers", "rounds", "test_every", "snapshot_every", "momentum", "seed", "average", "deadline", "tau_schedule", "averaging_share", "weighting", "outer_rate", "outer_momentum", "outer_nesterov", "moving_rate", "exchange", "late", "overlap_tests")
    class Momentum(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        AVERAGE: _ClassVar[SparkParameter.Momentum]
        LOCAL: _ClassVar[SparkParameter.Momentum]
        RESET: _ClassVar[SparkParameter.Momentum]
    AVERAGE: SparkParameter.Momentum
    LOCAL: SparkParameter.Momentum
    RESET: SparkParameter.Momentum
    class Weighting(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        EQUAL: _ClassVar[SparkParameter.Weighting]
        ROWS: _ClassVar[SparkParameter.Weighting]
    EQUAL: SparkParameter.Weighting
    ROWS: SparkParameter.Weighting
    class Exchange(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        FLOAT32: _ClassVar[SparkParameter.Exchange]
        BF16: _ClassVar[SparkParameter.Exchange]
        INT8: _ClassVar[SparkParameter.Exchange]
    FLOAT32: SparkParameter.Exchange
    BF16: SparkParameter.Exchange
    INT8: SparkParameter.Exchange
    class Strategy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        AUTO: _ClassVar[SparkParameter.Strategy]
        SPARK: _ClassVar[SparkParameter.Strategy]
        RING: _ClassVar[SparkParameter.Strategy]
    AUTO: SparkParameter.Strategy
    SPARK: SparkParameter.Strategy
    RING: SparkParameter.Strategy
    class Late(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        AGAIN: _ClassVar[SparkParameter.Late]
        DROP: _ClassVar[SparkParameter.Late]
    AGAIN: SparkParameter.Late
    DROP: SparkParameter.Late
    TAU_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    TEST_EVERY_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_EVERY_FIELD_NUMBER: _ClassVar[int]
    MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    AVERAGE_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    TAU_SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    AVERAGING_SHARE_FIELD_NUMBER: _ClassVar[int]
    WEIGHTING_FIELD_NUMBER: _ClassVar[int]
    OUTER_RATE_FIELD_NUMBER: _ClassVar[int]
    OUTER_MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    OUTER_NESTEROV_FIELD_NUMBER: _ClassVar[int]
    MOVING_RATE_FIELD_NUMBER: _ClassVar[int]
    EXCHANGE_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    OVERLAP_TESTS_FIELD_NUMBER: _ClassVar[int]
    tau: int
    workers: int
    rounds: int
    test_every: int
    snapshot_every: int
    momentum: SparkParameter.Momentum
    seed: int
    average: SparkParameter.Strategy
    deadline: float
    tau_schedule: str
    averaging_share: float
    weighting: SparkParameter.Weighting
    outer_rate: float
    outer_momentum: float
    outer_nesterov: bool
    moving_rate: float
    exchange: SparkParameter.Exchange
    late: SparkParameter.Late
    overlap_tests: bool
    def __init__(self, tau: _Optional[int] = ..., workers: _Optional[int] = ..., rounds: _Optional[int] = ..., test_every: _Optional[int] = ..., snapshot_every: _Optional[int] = ..., momentum: _Optional[_Union[SparkParameter.Momentum, str]] = ..., seed: _Optional[int] = ..., average: _Optional[_Union[SparkParameter.Strategy, str]] = ..., deadline: _Optional[float] = ..., tau_schedule: _Optional[str] = ..., averaging_share: _Optional[float] = ..., weighting: _Optional[_Union[SparkParameter.Weighting, str]] = ..., outer_rate: _Optional[float] = ..., outer_momentum: _Optional[float] = ..., outer_nesterov: _Optional[bool] = ..., moving_rate: _Optional[float] = ..., exchange: _Optional[_Union[SparkParameter.Exchange, str]] = ..., late: _Optional[_Union[SparkParameter.Late, str]] = ..., overlap_tests: _Optional[bool] = ...) -> None: ...
