/* determinism.c - prints the hashes of determinism.h for the best table of this machine; tests/check_targets.sh compares targets */
#include "library.h"
#include <stdio.h>
#include <string.h>
#include "determinism.h"

int main(void)
{
    nn_context *nn = nn_new(NULL);
    printf("mlp %016llx\n", (unsigned long long)train_mlp(nn));
    nn_free(nn);
    nn = nn_new(NULL);
    printf("cnn %016llx\n", (unsigned long long)train_cnn(nn));
    nn_free(nn);
    nn = nn_new(NULL);
    printf("rnn %016llx\n", (unsigned long long)train_rnn(nn));
    nn_free(nn);
    nn = nn_new(NULL);
    printf("paths %016llx\n", (unsigned long long)train_paths(nn));
    nn_free(nn);
    return 0;
}
