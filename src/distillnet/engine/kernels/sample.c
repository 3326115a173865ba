/* Rows and columns of a map in another order, fewer or repeated. */

typedef struct {
    tensor x, y;
    const uint16_t *rows, *columns; /* of x, one for each of y's */
} sampling;

static void run_sample(const sampling *s, float *arena)
{
    for (int32_t row = 0; row < s->y.h; row++)
        for (int32_t at = 0; at < s->y.w; at++) {
            const float *x = arena + s->x.at + (ptrdiff_t)s->rows[row] * s->x.row +
                             (ptrdiff_t)s->columns[at] * s->x.pixel;
            float *y = arena + s->y.at + (ptrdiff_t)row * s->y.row + (ptrdiff_t)at * s->y.pixel;
            memcpy(y, x, (size_t)s->y.c * sizeof(float));
        }
}
