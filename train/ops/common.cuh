// What the kernels share: element types, vector access, activations and their derivatives.
//
// Everything that shapes the code is a macro set by the caller (train/ops/kernels.py), so each compiled kernel
// holds one case only. DTYPE: 0 float, 1 double, 2 float16, 3 bfloat16. Half types are kept as bits and converted
// by single instructions, so that no header of the CUDA toolkit is needed.

#pragma once

#ifndef ON_CPU  // the tests run these files on the CPU: tests/kernel_shim.h
#define CHECK_ACCESS(pointer, bytes)
#endif

#if DTYPE == 0
typedef float T;
typedef float A;  // what sums, biases and filters are in
#elif DTYPE == 1
typedef double T;
typedef double A;
#else
struct T {
    unsigned short bits;
};
typedef float A;
#endif

#ifndef ON_CPU
__device__ __forceinline__ float half_to_float(unsigned short bits) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(bits));
    return y;
}
__device__ __forceinline__ unsigned short float_to_half(float x) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}
#endif

__device__ __forceinline__ unsigned short float_to_bfloat(float x) {
#if !defined(ON_CPU) && __CUDA_ARCH__ >= 800
    unsigned short bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
#else
    const unsigned bits = __float_as_uint(x);
    return x != x ? 0x7fff : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to nearest, ties to even
#endif
}

#if DTYPE < 2
__device__ __forceinline__ A widen(T x) { return x; }
__device__ __forceinline__ T narrow(A x) { return x; }
#elif DTYPE == 2
__device__ __forceinline__ A widen(T x) { return half_to_float(x.bits); }
__device__ __forceinline__ T narrow(A x) { return {float_to_half(x)}; }
#else
__device__ __forceinline__ A widen(T x) { return __uint_as_float((unsigned)x.bits << 16); }
__device__ __forceinline__ T narrow(A x) { return {float_to_bfloat(x)}; }
#endif

template <int N>
struct alignas(sizeof(T) * N) Vector {
    T item[N];
};

// One load or store of N elements; `p` is a multiple of N elements from an aligned start.
template <int N>
__device__ __forceinline__ void load(const T* __restrict__ p, A (&to)[N]) {
    CHECK_ACCESS(p, sizeof(Vector<N>));
    const Vector<N> v = *reinterpret_cast<const Vector<N>*>(p);
#pragma unroll
    for (int i = 0; i < N; ++i) to[i] = widen(v.item[i]);
}

template <int N>
__device__ __forceinline__ void store(T* __restrict__ p, const A (&from)[N]) {
    CHECK_ACCESS(p, sizeof(Vector<N>));
    Vector<N> v;
#pragma unroll
    for (int i = 0; i < N; ++i) v.item[i] = narrow(from[i]);
    *reinterpret_cast<Vector<N>*>(p) = v;
}

__device__ __forceinline__ A at(const A* __restrict__ p, long long i) {
    CHECK_ACCESS(p + i, sizeof(A));
    return p[i];
}

// ACT: 0 linear, 1 relu, 2 lrelu, 3 tanh, 4 sigmoid, 5 elu, 6 selu, 7 softplus, 8 swish.
#ifdef ACT
// The activation (D = 0) or its D-th derivative at v. Comparisons are written so that NaN stays NaN.
template <int D>
__device__ __forceinline__ A activation(A v, A slope) {
    const A one = 1;
#if ACT == 0
    return D == 0 ? v : D == 1 ? one : 0;
#elif ACT == 1
    if (D == 0) return v < 0 ? 0 : v;
    return D == 1 && v > 0 ? one : 0;
#elif ACT == 2
    if (D == 0) return v < 0 ? v * slope : v;
    return D == 1 ? (v > 0 ? one : slope) : 0;
#elif ACT == 3
    const A t = tanh(v);
    return D == 0 ? t : D == 1 ? one - t * t : -2 * t * (one - t * t);
#elif ACT == 4
    const A s = one / (one + exp(-v));
    return D == 0 ? s : D == 1 ? s * (one - s) : s * (one - s) * (one - 2 * s);
#elif ACT == 5
    if (v > 0) return D == 0 ? v : D == 1 ? one : 0;
    return D == 0 ? expm1(v) : exp(v);
#elif ACT == 6
    const A scale = 1.0507009873554804934193349852946, alpha = 1.6732632423543772848170429916717;
    if (v > 0) return D == 0 ? scale * v : D == 1 ? scale : 0;
    return scale * alpha * (D == 0 ? expm1(v) : exp(v));
#elif ACT == 7
    if (D == 0) return (v < 0 ? 0 : v) + log1p(exp(-fabs(v)));
    const A s = one / (one + exp(-v));
    return D == 1 ? s : s * (one - s);
#else
    const A s = one / (one + exp(-v));
    return D == 0 ? v * s : D == 1 ? s * (one + v * (one - s)) : s * (one - s) * (2 + v * (one - 2 * s));
#endif
}

__device__ __forceinline__ A bound(A v, A limit) {
#if CLAMP
    return v < -limit ? -limit : v > limit ? limit : v;
#else
    return v;
#endif
}
#endif
