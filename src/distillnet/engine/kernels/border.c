/* The border of zeros around a buffer of `pixel` channels; h and w are those inside. */
typedef struct {
    int32_t at, h, w, pixel, top, left, bottom, right;
} border;

INLINE void run_border(const border *s, float *arena)
{
    const size_t pixel = (size_t)s->pixel * sizeof(float);
    const ptrdiff_t row = (ptrdiff_t)(s->left + s->w + s->right) * s->pixel;
    float *p = arena + s->at;
    memset(p, 0, (size_t)(s->top * row) * sizeof(float));
    p += s->top * row;
    for (int32_t y = 0; y < s->h; y++, p += row) {
        memset(p, 0, (size_t)s->left * pixel);
        memset(p + (ptrdiff_t)(s->left + s->w) * s->pixel, 0, (size_t)s->right * pixel);
    }
    memset(p, 0, (size_t)(s->bottom * row) * sizeof(float));
}
