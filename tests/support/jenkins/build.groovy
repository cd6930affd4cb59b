/*
 * The steps of a declarative pipeline, as far as the examples use them. What sh, withEnv, dir and
 * deleteDir do here, they do on an agent; stages and post conditions come in Jenkins's order.
 * It is no Jenkins: nothing is transformed to CPS, and there is no sandbox.
 *
 *     java -cp groovy.jar groovy.ui.GroovyMain build.groovy JENKINSFILE VARS WORKSPACE NAME=VALUE...
 *
 * The values are parameters of the build. The exit code is 0 for a success and 1 for a failure.
 */
class Pipeline {
    Map<String, Closure> sections = [:]

    void agent(String label) { assert label == 'any' }

    String getAny() { 'any' }

    void parameters(Closure body) { sections.parameters = body }

    void options(Closure body) { sections.options = body }

    void environment(Closure body) { sections.environment = body }

    void stages(Closure body) { sections.stages = body }

    void post(Closure body) { sections.post = body }
}

class Parameters {
    Map<String, String> values

    void string(Map declared) { values.putIfAbsent(declared.name, declared.defaultValue) }
}

class Options {
    void timeout(Map limit) { assert limit.time && limit.unit in ['SECONDS', 'MINUTES', 'HOURS'] }
}

class Environment {
    Map<String, String> env

    void propertyMissing(String name, Object value) { env[name] = value as String }
}

class Stages {
    List<Stage> all = []

    void stage(String name, Closure body) { all << Agent.in(new Stage(name: name), body) }
}

class Stage {
    String name
    Closure body

    void steps(Closure body) { this.body = body }
}

class Post {
    Map<String, Closure> conditions = [:]

    void success(Closure body) { conditions.success = body }

    void unsuccessful(Closure body) { conditions.unsuccessful = body }

    void cleanup(Closure body) { conditions.cleanup = body }
}

class Agent {
    Map<String, String> env
    Map<String, String> params
    File directory
    String currentResult = 'SUCCESS'

    static <T> T in(T section, Closure body) {
        body.delegate = section
        body.resolveStrategy = Closure.DELEGATE_FIRST
        body()
        section
    }

    Integer sh(Map step) {
        directory.mkdirs()
        ProcessBuilder shell = new ProcessBuilder('sh', '-xe', '-c', step.script as String)
        shell.directory(directory).inheritIO().environment().clear()
        shell.environment().putAll(env)
        System.out.flush()
        int code = shell.start().waitFor()
        if (step.returnStatus) {
            return code
        }
        if (code != 0) {
            throw new IOException("script returned exit code ${code}")
        }
        null
    }

    void withEnv(List<String> assignments, Closure body) {
        Map<String, String> before = new HashMap(env)
        for (assignment in assignments) {
            String[] pair = (assignment as String).split('=', 2)
            env[pair[0]] = pair[1]
        }
        try {
            body()
        } finally {
            env.clear()
            env.putAll(before)
        }
    }

    void dir(String path, Closure body) {
        File before = directory
        directory = new File(path).absolute ? new File(path) : new File(directory, path)
        try {
            body()
        } finally {
            directory = before
        }
    }

    void pipeline(Closure body) {
        Map<String, Closure> sections = in(new Pipeline(), body).sections
        in(new Parameters(values: params), sections.parameters ?: { })
        in(new Options(), sections.options ?: { })
        env.putAll(params)
        in(new Environment(env: env), sections.environment ?: { })
        attempt {
            in(new Stages(), sections.stages).all.each { stage ->
                println "[stage] ${stage.name}"
                stage.body()
            }
        }
        Map<String, Closure> post = in(new Post(), sections.post ?: { }).conditions
        for (condition in ['success', 'unsuccessful', 'cleanup']) {
            boolean good = currentResult == 'SUCCESS'
            boolean holds = [success: good, unsuccessful: !good, cleanup: true][condition]
            if (holds && post[condition]) {
                println "[post] ${condition}"
                attempt(post[condition])
            }
        }
    }

    private void attempt(Closure part) {
        try {
            part()
        } catch (Throwable failure) {
            println "ERROR: ${failure.message}"
            currentResult = 'FAILURE'
        }
    }
}

@interface Library {
    String value()
}

String[] files = args[0..2]
Agent agent = new Agent(
    directory: new File(files[2]),
    params: args.drop(3).collectEntries { it.split('=', 2) as List },
    env: new HashMap(System.getenv()) + [
        WORKSPACE: files[2], BUILD_NUMBER: '7', BUILD_TAG: 'jenkins-app-7',
        BUILD_URL: 'https://jenkins.example.com/job/app/7/',
    ],
)
Binding steps = new Binding(env: agent.env, params: agent.params, currentBuild: agent)
steps.with {
    pipeline = agent.&pipeline
    sh = { step -> agent.sh(step instanceof Map ? step : [script: step]) }
    withEnv = agent.&withEnv
    dir = agent.&dir
    pwd = { -> agent.directory.path }
    deleteDir = { -> agent.directory.deleteDir() }
    isUnix = { -> agent.env.AGENT != 'windows' }
    echo = { text -> println text }
    error = { text -> throw new IllegalStateException(text as String) }
}
GroovyShell shell = new GroovyShell(this.class.classLoader, steps)
new File(files[1]).eachFileMatch(~/.*\.groovy/) { file ->
    Script step = shell.parse(file)
    steps.setVariable(file.name - '.groovy', { Object... given -> step.call(*given) })
}
shell.evaluate(new File(files[0]))
System.exit(agent.currentResult == 'SUCCESS' ? 0 : 1)
