/**
 * Fetches the inputs of a job into in/, as in: cpstageFetch(['--artifact', 'App*']).
 *
 * @param options more options of 'cpstage fetch'
 */
void call(List<String> options = []) {
    cpstage(['fetch'] + options)
}
