// Rotary positions in place. A head's first R dimensions are turned in pairs (i, i + R/2); one thread turns N pairs.

template <int N> __device__ void turn_pairs(T* q, T* k, const T* cosine, const T* sine, i64 tokens, i64 table, int heads, int groups, int dim, int rotary,
    i64 qStride, i64 kStride, float sign)
{
    int half = rotary / 2, parts = half / N;
    i64 index = blockIdx.x * (i64)blockDim.x + threadIdx.x;
    if (index >= tokens * (heads + groups) * parts)
        return;
    int i = (int)(index % parts) * N;
    int head = (int)(index / parts % (heads + groups));
    i64 token = index / parts / (heads + groups);
    T* x = head < heads ? q + token * qStride + (i64)head * dim : k + token * kStride + (i64)(head - heads) * dim;
    const T* c = cosine + token % table * rotary + i;
    const T* s = sine + token % table * rotary + i;
    Pack<T, N> a = load<N>(x + i), b = load<N>(x + half + i), co = load<N>(c), si = load<N>(s), left, right;
    for (int j = 0; j < N; j++)
    {
        float turn = si[j] * sign;
        left.set(j, a[j] * co[j] - b[j] * turn);
        right.set(j, b[j] * co[j] + a[j] * turn);
    }
    store(x + i, left);
    store(x + half + i, right);
}

// q: tokens × heads × dim with qStride between tokens, k likewise. cosine and sine: table × rotary; token t uses row t mod table. sign −1 turns back.
extern "C" __global__ void turn(T* q, T* k, const T* cosine, const T* sine, i64 tokens, i64 table, int heads, int groups, int dim, int rotary,
    i64 qStride, i64 kStride, float sign, int packed)
{
    if (packed)
        turn_pairs<16 / sizeof(T)>(q, k, cosine, sine, tokens, table, heads, groups, dim, rotary, qStride, kStride, sign);
    else
        turn_pairs<1>(q, k, cosine, sine, tokens, table, heads, groups, dim, rotary, qStride, kStride, sign);
}
