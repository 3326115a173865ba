
int @NAME@_run_pixels(const @NAME@_mission *mission, void *arena, size_t arena_bytes,
                      const uint8_t *pixels, float *out)
{
    if (mission == NULL || arena == NULL || pixels == NULL || out == NULL)
        return @UPPER@_ERROR_NULL;
    const int status = checked(mission, arena, arena_bytes, NULL, out);
    if (status != @UPPER@_OK)
        return status;
    give_scores(mission, arena, NULL, pixels, out);
    return @UPPER@_OK;
}
