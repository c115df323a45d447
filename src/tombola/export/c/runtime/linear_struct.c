/* A sparse product. Eight outputs are computed side by side, each from as many weights; lacking ones are 0. */
struct @NAME@_product {
    const float *weights;
    const void *index;      /* of each weight: what it reads, from its block's base or the weight before */
    const uint16_t *steps;  /* [blocks][groups], weights of each output of a group */
    const int32_t *bases;   /* [blocks] */
    const float *bias;      /* [8 * groups] */
    const uint16_t *starts; /* of each step, where indices count from its own place; else a null pointer */
    int32_t blocks, groups;
    float low, high;
};

