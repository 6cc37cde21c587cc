"""The part of Caffe's format that is read: src/caffe/proto/caffe.proto of github.com/BVLC/caffe."""

from __future__ import annotations

from functools import cache
from typing import Any

from regraft.source.messages import declare

_ENUMS = {
    "Phase": "0 TRAIN; 1 TEST",
    "PoolMethod": "0 MAX; 1 AVE; 2 STOCHASTIC",
    "RoundMode": "0 CEIL; 1 FLOOR",
    "EltwiseOp": "0 PROD; 1 SUM; 2 MAX",
    "NormRegion": "0 ACROSS_CHANNELS; 1 WITHIN_CHANNEL",
    "LayerType": (
        "0 NONE; 1 ACCURACY; 2 BNLL; 3 CONCAT; 4 CONVOLUTION; 5 DATA; 6 DROPOUT; 7 EUCLIDEAN_LOSS; 8 FLATTEN; "
        "9 HDF5_DATA; 10 HDF5_OUTPUT; 11 IM2COL; 12 IMAGE_DATA; 13 INFOGAIN_LOSS; 14 INNER_PRODUCT; 15 LRN; "
        "16 MULTINOMIAL_LOGISTIC_LOSS; 17 POOLING; 18 RELU; 19 SIGMOID; 20 SOFTMAX; 21 SOFTMAX_LOSS; 22 SPLIT; "
        "23 TANH; 24 WINDOW_DATA; 25 ELTWISE; 26 POWER; 27 SIGMOID_CROSS_ENTROPY_LOSS; 28 HINGE_LOSS; "
        "29 MEMORY_DATA; 30 ARGMAX; 31 THRESHOLD; 32 DUMMY_DATA; 33 SLICE; 34 MVN; 35 ABSVAL; 36 SILENCE; "
        "37 CONTRASTIVE_LOSS; 38 EXP; 39 DECONVOLUTION"
    ),
}
_MESSAGES = {
    "BlobShape": "1 dim int64*",
    "BlobProto": (
        "1 num int32; 2 channels int32; 3 height int32; 4 width int32; 5 data float*; 7 shape BlobShape; "
        "8 double_data double*"
    ),
    "NetStateRule": "1 phase Phase",
    "NetParameter": (
        "1 name string; 2 layers V1LayerParameter*; 3 input string*; 4 input_dim int32*; 8 input_shape BlobShape*; "
        "100 layer LayerParameter*"
    ),
    "LayerParameter": (
        "1 name string; 2 type string; 3 bottom string*; 4 top string*; 7 blobs BlobProto*; 8 include NetStateRule*; "
        "9 exclude NetStateRule*; 10 phase Phase; 100 transform_param Transformation; 104 concat_param Concat; "
        "106 convolution_param Convolution; 108 dropout_param Dropout; 110 eltwise_param Eltwise; "
        "117 inner_product_param InnerProduct; 118 lrn_param LRN; 119 memory_data_param MemoryData; "
        "121 pooling_param Pooling; 122 power_param Power; 123 relu_param ReLU; 125 softmax_param Softmax; "
        "126 slice_param Slice; 131 prelu_param PReLU; 133 reshape_param Reshape; 135 flatten_param Flatten; "
        "139 batch_norm_param BatchNorm; 140 elu_param ELU; 141 bias_param Bias; 142 scale_param Scale; "
        "143 input_param Input"
    ),
    "V1LayerParameter": (
        "2 bottom string*; 3 top string*; 4 name string; 5 type LayerType; 6 blobs BlobProto*; 9 concat_param Concat; "
        "10 convolution_param Convolution; 12 dropout_param Dropout; 17 inner_product_param InnerProduct; "
        "18 lrn_param LRN; 19 pooling_param Pooling; 21 power_param Power; 22 memory_data_param MemoryData; "
        "24 eltwise_param Eltwise; 30 relu_param ReLU; 31 slice_param Slice; 32 include NetStateRule*; "
        "33 exclude NetStateRule*; 36 transform_param Transformation; 39 softmax_param Softmax"
    ),
    "Transformation": "1 scale float; 3 crop_size uint32; 4 mean_file string; 5 mean_value float*",
    "Input": "1 shape BlobShape*",
    "MemoryData": "1 batch_size uint32; 2 channels uint32; 3 height uint32; 4 width uint32",
    "Convolution": (
        "1 num_output uint32; 2 bias_term bool; 3 pad uint32*; 4 kernel_size uint32*; 5 group uint32; "
        "6 stride uint32*; 9 pad_h uint32; 10 pad_w uint32; 11 kernel_h uint32; 12 kernel_w uint32; "
        "13 stride_h uint32; 14 stride_w uint32; 18 dilation uint32*"
    ),
    "Pooling": (
        "1 pool PoolMethod; 2 kernel_size uint32; 3 stride uint32; 4 pad uint32; 5 kernel_h uint32; 6 kernel_w uint32; "
        "7 stride_h uint32; 8 stride_w uint32; 9 pad_h uint32; 10 pad_w uint32; 12 global_pooling bool; "
        "13 round_mode RoundMode"
    ),
    "InnerProduct": "1 num_output uint32; 2 bias_term bool; 5 axis int32; 6 transpose bool",
    "LRN": "1 local_size uint32; 2 alpha float; 3 beta float; 4 norm_region NormRegion; 5 k float",
    "ReLU": "1 negative_slope float",
    "PReLU": "2 channel_shared bool",
    "ELU": "1 alpha float",
    "Power": "1 power float; 2 scale float; 3 shift float",
    "Eltwise": "1 operation EltwiseOp; 2 coeff float*",
    "Concat": "1 concat_dim uint32; 2 axis int32",
    "Softmax": "2 axis int32",
    "Slice": "1 slice_dim uint32; 2 slice_point uint32*; 3 axis int32",
    "Flatten": "1 axis int32; 2 end_axis int32",
    "Reshape": "1 shape BlobShape; 2 axis int32; 3 num_axes int32",
    "Dropout": "1 dropout_ratio float",
    "BatchNorm": "1 use_global_stats bool; 3 eps float",
    "Scale": "1 axis int32; 2 num_axes int32; 4 bias_term bool",
    "Bias": "1 axis int32; 2 num_axes int32",
}


@cache
def net_parameter() -> Any:
    """The message class of a whole network, weights included."""
    return declare("regraft.caffe", _MESSAGES, _ENUMS)["NetParameter"]
