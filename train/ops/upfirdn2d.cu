// Zeros in, pad or crop, FIR, keep every DOWN-th; then, where asked for, times scale[n, c], plus bias[c], activation.
//
// Each thread owns a tile of TY x TX outputs (of VC channels in channels_last memory) and walks down the input
// rows under it. A row is loaded once, filtered sideways, and added to every output row it reaches, all in
// registers: sums never touch memory, neighbours' overlap is served by the L1 cache. UP, DOWN, the padding and the
// filter's size are macros, so which tap meets which pixel is settled at compile time and inserted zeros cost nothing.
//
// SEPARABLE: `f` holds KW = KH taps of one axis, else KH x KW. FLIP: correlation instead of convolution.
// FIR 0: no filter, every tap is one. CHANNELS_LAST: threads run along (channel, x, y and n), else (x, y, n and channel).
// VI, VO: elements per load and store along x (planar), which divide the widths and the tile.

#include "common.cuh"

__device__ constexpr int floor_div(int a, int b) { return (a >= 0 ? a : a - b + 1) / b; }

// The tile's first output times DOWN is a multiple of UP. Relative to that, input column c meets output i at tap
// c * UP - PHASE_X - i * DOWN; columns count from START_X.
constexpr int START_X = floor_div(-LEFT, UP), PHASE_X = -LEFT - START_X * UP;
constexpr int START_Y = floor_div(-TOP, UP), PHASE_Y = -TOP - START_Y * UP;
constexpr int COLUMNS = (PHASE_X + (TX - 1) * DOWN + KW - 1) / UP + 1;
constexpr int ROWS = (PHASE_Y + (TY - 1) * DOWN + KH - 1) / UP + 1;
constexpr int SKEW = START_X - floor_div(START_X, VI) * VI;  // from the aligned load to the first column
constexpr int LOADS = (SKEW + COLUMNS + VI - 1) / VI;

#define TAP(k, size) (FLIP ? (k) : (size) - 1 - (k))
#define READ(i) (FIR ? at(f, i) : A(1))

extern "C" __global__ void __launch_bounds__(BLOCK)
upfirdn2d(T* __restrict__ y, const T* __restrict__ x, const A* __restrict__ f, const A* __restrict__ scale,
          const A* __restrict__ bias, int batch, int channels, int h, int w, int oh, int ow, unsigned blocks0,
          unsigned blocks1, A gain, A slope, A act_gain, A limit) {
    const unsigned block01 = blockIdx.x / blocks0;
    const int t0 = blockIdx.x % blocks0 * blockDim.x + threadIdx.x;
    const int t1 = block01 % blocks1 * blockDim.y + threadIdx.y;
    const long long t2 = (long long)(block01 / blocks1) * blockDim.z + threadIdx.z;
    const int tiles_y = (oh + TY - 1) / TY;
#if CHANNELS_LAST
    const int c0 = t0 * VC, tile_x = t1, tile_y = t2 % tiles_y;
    const long long n = t2 / tiles_y;
    if (c0 >= channels || tile_x * TX >= ow || n >= batch) return;
    x += n * h * w * channels + c0;
    y += n * oh * ow * channels + c0;
#else
    const int tile_x = t0, tile_y = t1;
    const long long n = t2 / channels;
    const int c0 = t2 % channels;
    if (tile_x * TX >= ow || tile_y >= tiles_y || n >= batch) return;
    x += t2 * h * w;
    y += t2 * oh * ow;
#endif
    const int x0 = tile_x * (TX * DOWN / UP) + START_X, y0 = tile_y * (TY * DOWN / UP) + START_Y;

    A sum[TY][TX][VC] = {};
#if UNROLL
#pragma unroll
#else
#pragma unroll 1
#endif
    for (int r = 0; r < ROWS; ++r) {
        const int iy = y0 + r;
        if (iy < 0 || iy >= h) continue;
        A row[LOADS * VI][VC];
#pragma unroll
        for (int v = 0; v < LOADS; ++v) {
            const int ix = x0 - SKEW + v * VI;
            const bool inside = ix >= 0 && ix < w;
#if CHANNELS_LAST
            if (inside) load<VC>(x + ((long long)iy * w + ix) * channels, row[v]);
#pragma unroll
            for (int c = 0; c < VC; ++c) row[v][c] = inside ? row[v][c] : 0;
#else
            A part[VI];
            if (inside) load<VI>(x + (long long)iy * w + ix, part);
#pragma unroll
            for (int j = 0; j < VI; ++j) row[v * VI + j][0] = inside ? part[j] : 0;
#endif
        }
#if SEPARABLE
        A across[TX][VC] = {};
#pragma unroll
        for (int i = 0; i < TX; ++i)
#pragma unroll
            for (int c = 0; c < COLUMNS; ++c) {
                const int kx = c * UP - PHASE_X - i * DOWN;
                if (kx < 0 || kx >= KW) continue;
                const A tap = READ(TAP(kx, KW));
#pragma unroll
                for (int k = 0; k < VC; ++k) across[i][k] += tap * row[SKEW + c][k];
            }
#endif
#pragma unroll
        for (int j = 0; j < TY; ++j) {
            const int ky = r * UP - PHASE_Y - j * DOWN;
            if (ky < 0 || ky >= KH) continue;
#pragma unroll
            for (int i = 0; i < TX; ++i) {
#if SEPARABLE
                const A tap = READ(TAP(ky, KH));
#pragma unroll
                for (int k = 0; k < VC; ++k) sum[j][i][k] += tap * across[i][k];
#else
#pragma unroll
                for (int c = 0; c < COLUMNS; ++c) {
                    const int kx = c * UP - PHASE_X - i * DOWN;
                    if (kx < 0 || kx >= KW) continue;
                    const A tap = READ(TAP(ky, KH) * KW + TAP(kx, KW));
#pragma unroll
                    for (int k = 0; k < VC; ++k) sum[j][i][k] += tap * row[SKEW + c][k];
                }
#endif
            }
        }
    }

    A times[VC], plus[VC];
#pragma unroll
    for (int k = 0; k < VC; ++k) {
        times[k] = SCALE ? gain * at(scale, n * channels + c0 + k) : gain;
        plus[k] = BIAS ? at(bias, c0 + k) : 0;
    }
#pragma unroll
    for (int j = 0; j < TY; ++j) {
        const int oy = tile_y * TY + j;
        if (oy >= oh) continue;
#pragma unroll
        for (int i = 0; i < TX; i += VO) {
            const int ox = tile_x * TX + i;
            if (ox >= ow) continue;
            A out[VO * VC];
#pragma unroll
            for (int k = 0; k < VO * VC; ++k) {
                const A v = sum[j][i + k / VC][k % VC] * times[k % VC] + plus[k % VC];
                out[k] = bound(act_gain * activation<0>(v, slope), limit);
            }
            store<VO * VC>(y + ((long long)oy * ow + ox) * (CHANNELS_LAST ? channels : 1), out);
        }
    }
}
