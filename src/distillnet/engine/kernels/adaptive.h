/* Pools that fit their windows to the size of the output; 1 x 1 is the mean of the whole map. */

typedef struct {
    tensor x, y;
} adaptive;

/* Window i of n over a side: from first up to, without, end. */
INLINE int32_t window_first(int32_t i, int32_t side, int32_t n) { return i * side / n; }
INLINE int32_t window_end(int32_t i, int32_t side, int32_t n)
{
    return ((i + 1) * side + n - 1) / n;
}
