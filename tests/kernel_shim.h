// Runs a CUDA kernel on the CPU: one thread after the other, every access checked. Test only.
//
// It stands in for what the compiler and the CUDA headers provide. Access outside the tensors handed over, or not
// aligned to its size, is counted and refused by the test.

#define ON_CPU
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(n)

extern "C" {
double exp(double);
double expm1(double);
double log1p(double);
double tanh(double);
double fabs(double);
float expf(float);
float expm1f(float);
float log1pf(float);
float tanhf(float);
float fabsf(float);
}
inline float exp(float x) { return expf(x); }
inline float expm1(float x) { return expm1f(x); }
inline float log1p(float x) { return log1pf(x); }
inline float tanh(float x) { return tanhf(x); }
inline float fabs(float x) { return fabsf(x); }

inline float __uint_as_float(unsigned x) { return __builtin_bit_cast(float, x); }
inline unsigned __float_as_uint(float x) { return __builtin_bit_cast(unsigned, x); }

struct Place {
    unsigned x, y, z;
};
static Place blockIdx, threadIdx, blockDim;

struct Range {
    unsigned long long start, end;
};
static const Range* ranges;
static int range_count;
static long long violations;

static void check_access(unsigned long long address, unsigned long long bytes) {
    for (int i = 0; i < range_count; ++i)
        if (address >= ranges[i].start && address + bytes <= ranges[i].end && address % bytes == 0) return;
    ++violations;
}
#define CHECK_ACCESS(pointer, bytes) check_access((unsigned long long)(pointer), bytes)

inline float half_to_float(unsigned short h) {
    const unsigned magnitude = h & 0x7fff, sign = (h & 0x8000u) << 16;
    if (magnitude >= 0x7c00) return __uint_as_float(sign | 0x7f800000 | magnitude << 13);
    return __uint_as_float(sign | __float_as_uint(__uint_as_float(magnitude << 13) * 0x1p112f));
}
inline unsigned short float_to_half(float x) {  // to nearest, ties to even
    unsigned bits = __float_as_uint(x);
    const unsigned sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) return sign | 0x7e00;
    if (bits >= 0x477ff000) return sign | 0x7c00;
    if (bits < 0x38800000)  // subnormal: the sum with 0.5 rounds at the right place
        return sign | (__float_as_uint(__uint_as_float(bits) + 0.5f) - 0x3f000000);
    return sign | ((bits + 0xc8000fff + (bits >> 13 & 1)) >> 13);
}

// Calls the kernel with arguments as the CUDA driver takes them: a pointer to each.
template <int... I>
struct Indices {};
template <int N, int... I>
struct Counting : Counting<N - 1, N - 1, I...> {};
template <int... I>
struct Counting<0, I...> {
    typedef Indices<I...> type;
};

template <class... P, int... I>
void call(void (*kernel)(P...), void** arguments, Indices<I...>) {
    kernel(*static_cast<P*>(arguments[I])...);
}

template <class... P>
void on_every_thread(void (*kernel)(P...), unsigned blocks, Place threads, void** arguments) {
    blockDim = threads;
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x)
        for (threadIdx.z = 0; threadIdx.z < threads.z; ++threadIdx.z)
            for (threadIdx.y = 0; threadIdx.y < threads.y; ++threadIdx.y)
                for (threadIdx.x = 0; threadIdx.x < threads.x; ++threadIdx.x)
                    call(kernel, arguments, typename Counting<sizeof...(P)>::type());
}
