// y = clamp(gain * act(x + b[c])), and its first and second derivatives with respect to x.
//
// A stream: each thread moves ITEMS vectors of V neighbouring elements, 16 bytes each where the shape allows.
// ORDER 0: out = y(p).
// ORDER 1: out = p * y'(v); p is the gradient of y.
// ORDER 2: out = p * q * y''(v); p is the gradient of ORDER 1's output, q ORDER 1's p.
// For linear, relu and lrelu (ACT <= 2) `ref` is the stored y, whose sign and size tell all; else it is x.
// CHANNELS_INNER: the channel is the fastest axis (channels_last), else `inner` elements share one.

#include "common.cuh"

#if WIDE
typedef unsigned long long Index;
#else
typedef unsigned Index;
#endif

extern "C" __global__ void __launch_bounds__(BLOCK)
bias_act(T* __restrict__ out, const T* __restrict__ p, const T* __restrict__ q, const T* __restrict__ ref,
         const A* __restrict__ b, long long count, int inner, int channels, A slope, A gain, A limit) {
    const Index vectors = count / V;
    const Index first = (Index)blockIdx.x * (BLOCK * ITEMS) + threadIdx.x;
    A vp[ITEMS][V], vq[ITEMS][V], vr[ITEMS][V];
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {  // all loads before the first use, so that their delays overlap
        const Index i = first + k * BLOCK;
        if (i >= vectors) continue;
        load<V>(p + (long long)i * V, vp[k]);
        if (ORDER == 2) load<V>(q + (long long)i * V, vq[k]);
        if (ORDER > 0) load<V>(ref + (long long)i * V, vr[k]);
    }
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {
        const Index i = first + k * BLOCK;
        if (i >= vectors) continue;
        const int c = CHANNELS_INNER ? i * V % channels : i * V / inner % channels;
        A result[V];
#pragma unroll
        for (int j = 0; j < V; ++j) {
            const A shift = BIAS ? at(b, CHANNELS_INNER ? c + j : c) : 0;
            if (ORDER == 0) {
                result[j] = bound(gain * activation<0>(vp[k][j] + shift, slope), limit);
                continue;
            }
            A v, y;
            if (ACT <= 2) {
                y = vr[k][j];
                v = gain < 0 ? -y : y;
            } else {
                v = vr[k][j] + shift;
                y = CLAMP ? gain * activation<0>(v, slope) : 0;
            }
            A d = vp[k][j] * gain * activation<ORDER>(v, slope);
            if (ORDER == 2) d *= vq[k][j];
            result[j] = !CLAMP || fabs(y) < limit ? d : 0;
        }
        store<V>(out + (long long)i * V, result);
    }
}
