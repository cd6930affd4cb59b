/*
 * The steps of a declarative pipeline, as far as the examples use them. What sh, withEnv, dir and
 * deleteDir do here, they do on an agent; stages and post conditions come in Jenkins's order.
 * It is no Jenkins: nothing is transformed to CPS, and there is no sandbox.
 *
 *     java -cp groovy.jar groovy.ui.GroovyMain build.groovy JENKINSFILE VARS WORKSPACE JOB_NAME
 *
 * The exit code is 0 for a success and NOT_BUILT, 1 for every other result. A sh step that ends with
 * 143 stands for an abort by a person, as Jenkins aborts a step with SIGTERM.
 */

/** What Jenkins throws into an aborted step; its message was empty before September 2025. */
class FlowInterruptedException extends InterruptedException {
    List<Map> causes = [[shortDescription: 'Aborted by alice']]
    String message
}

/** The variable env: what a block or stage has set hides what is assigned. */
class Variables {
    Map<String, String> assigned = [:]
    List<Map<String, String>> blocks = []

    Object propertyMissing(String name) { all()[name] }

    void propertyMissing(String name, Object value) { assigned[name] = value as String }

    Map<String, String> all() {
        Map<String, String> visible = new HashMap(assigned)
        blocks.each { visible.putAll(it) }
        visible
    }

    Object within(Map<String, String> block, Closure body) {
        blocks << block
        try {
            body()
        } finally {
            blocks.remove(blocks.size() - 1)
        }
    }
}

/** The variable currentBuild. */
class Build {
    String result
    String description

    String getCurrentResult() { result ?: 'SUCCESS' }
}

/** Sections of a pipeline or of a stage. Each of them is kept until its time has come. */
class Sections {
    String name
    Map<String, Closure> all = [:]
    List<Sections> children = []

    String getAny() { 'any' }

    void agent(String label) { assert label == 'any' }

    void triggers(Closure body) { all.triggers = body }

    void options(Closure body) { all.options = body }

    void environment(Closure body) { all.environment = body }

    void when(Closure body) { all.when = body }

    void steps(Closure body) { all.steps = body }

    void post(Closure body) { all.post = body }

    void stages(Closure body) { Agent.fill(this, body) }

    void stage(String name, Closure body) { children << Agent.fill(new Sections(name: name), body) }
}

class Triggers {
    void cron(String times) { assert times.split(' ').length == 5 }
}

class Options {
    Sections of

    void timeout(Map limit) { assert limit.time && limit.unit in ['SECONDS', 'MINUTES', 'HOURS'] }

    void skipDefaultCheckout() { assert of.name == null }

    void disableConcurrentBuilds() { assert of.name == null }

    void buildDiscarder(Map rotation) { assert rotation.daysToKeepStr.toInteger() > 0 }

    Map logRotator(Map rotation) { rotation }
}

class Environment {
    Map<String, String> values = [:]

    void propertyMissing(String name, Object value) { values[name] = value as String }
}

class When {
    boolean holds = true

    void expression(Closure body) { holds = holds && body() }
}

class Post {
    Map<String, Closure> conditions = [:]

    Object methodMissing(String name, Object given) {
        if (!(name in ['aborted', 'failure', 'success', 'unstable', 'unsuccessful', 'cleanup'])) {
            throw new MissingMethodException(name, Post, given) // a step in a condition
        }
        conditions[name] = given[0]
    }
}

class Agent {
    Variables env
    Build build
    File directory

    static <T> T fill(T section, Closure body) {
        if (body) {
            body.delegate = section
            body.resolveStrategy = Closure.DELEGATE_FIRST
            body()
        }
        section
    }

    Object sh(Map step) {
        directory.mkdirs()
        ProcessBuilder shell = new ProcessBuilder('sh', '-xe', '-c', step.script as String)
        shell.directory(directory).redirectError(ProcessBuilder.Redirect.INHERIT)
        shell.environment().clear()
        shell.environment().putAll(env.all())
        File output = null
        if (step.returnStdout) {
            output = File.createTempFile('stdout', '')
            shell.redirectOutput(output)
        } else {
            shell.redirectOutput(ProcessBuilder.Redirect.INHERIT)
        }
        System.out.flush()
        int code = shell.start().waitFor()
        if (code == 143) {
            throw new FlowInterruptedException(message: env.NO_MESSAGE ? null : 'Aborted by alice')
        }
        if (step.returnStatus) {
            return code
        }
        if (code != 0) {
            throw new IOException("script returned exit code ${code}")
        }
        String text = output?.text
        output?.delete()
        text
    }

    void withEnv(List<String> assignments, Closure body) {
        env.within(assignments.collectEntries { (it as String).split('=', 2) as List }, body)
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
        Throwable failure = run(Agent.fill(new Sections(), body))
        if (failure) {
            println "ERROR: ${failure.message}"
            build.result = failure instanceof FlowInterruptedException ? 'ABORTED' : 'FAILURE'
        }
    }

    /** Runs a pipeline or a stage, and returns its first failure. */
    private Throwable run(Sections stage) {
        Agent.fill(new Triggers(), stage.all.triggers)
        Agent.fill(new Options(of: stage), stage.all.options)
        if (!Agent.fill(new When(), stage.all.when).holds) {
            println "[skipped] ${stage.name}"
            return null
        }
        Map<String, String> variables = Agent.fill(new Environment(), stage.all.environment).values
        Throwable failure = null
        env.within(stage.name ? variables + [STAGE_NAME: stage.name] : variables) {
            println "[stage] ${stage.name}"
            failure = attempt(stage.all.steps)
            for (child in stage.children) {
                failure = failure ?: run(child)
            }
            Map<String, Closure> post = Agent.fill(new Post(), stage.all.post).conditions
            String result = result(failure)
            for (condition in conditions(result).findAll { it in post }) {
                println "[post] ${condition}"
                Throwable other = attempt(post[condition])
                failure = failure ?: other
            }
        }
        failure
    }

    private Throwable attempt(Closure part) {
        try {
            part?.call()
            return null
        } catch (Throwable failure) {
            return failure
        }
    }

    private String result(Throwable failure) {
        if (failure) {
            return failure instanceof FlowInterruptedException ? 'ABORTED' : 'FAILURE'
        }
        build.currentResult
    }

    private List<String> conditions(String result) {
        List<String> all = [result.toLowerCase()]
        if (result != 'SUCCESS') {
            all << 'unsuccessful'
        }
        all + ['cleanup']
    }
}

/** A file of vars/: called by its name, and its other methods on it. */
class GlobalVariable extends Closure {
    Script script

    GlobalVariable(Script script) {
        super(script)
        this.script = script
    }

    Object doCall(Object... given) { script.invokeMethod('call', given) }

    Object methodMissing(String name, Object given) { script.invokeMethod(name, given) }
}

@interface Library {
    String value()
}

String[] files = args[0..2]
Variables env = new Variables(assigned: new HashMap(System.getenv()) + [
    WORKSPACE: files[2], BUILD_NUMBER: '7', BUILD_TAG: 'jenkins-app-7',
    BUILD_URL: 'https://jenkins.example.com/job/app/7/',
    JOB_NAME: args[3], JOB_BASE_NAME: args[3].split('/')[-1],
])
File scripts = new File(files[0]).parentFile
Build build = new Build()
Agent agent = new Agent(env: env, build: build, directory: new File(files[2]))
Binding steps = new Binding(env: env, currentBuild: build)
steps.with {
    pipeline = agent.&pipeline
    script = { body -> body() }
    node = { body -> body() }
    timeout = { Map limit, Closure body -> body() }
    usernamePassword = { Map binding -> binding }
    withCredentials = { List<Map> bindings, Closure body ->
        Map<String, String> keys = [:]
        bindings.each {
            keys[it.usernameVariable] = new File(scripts, it.credentialsId + '/username').text
            keys[it.passwordVariable] = new File(scripts, it.credentialsId + '/password').text
        }
        env.within(keys, body)
    }
    unstable = { text -> build.result = 'UNSTABLE' }
    sh = { step -> agent.sh(step instanceof Map ? step : [script: step]) }
    withEnv = agent.&withEnv
    dir = agent.&dir
    pwd = { -> agent.directory.path }
    deleteDir = { -> agent.directory.deleteDir() }
    isUnix = { -> env.AGENT != 'windows' }
    echo = { text -> println text }
    error = { text -> throw new IllegalStateException(text as String) }
}
GroovyShell shell = new GroovyShell(this.class.classLoader, steps)
new File(files[1]).eachFileMatch(~/.*\.groovy/) { file ->
    steps.setVariable(file.name - '.groovy', new GlobalVariable(shell.parse(file)))
}
shell.evaluate(new File(files[0]))
println "Finished: ${build.currentResult}"
System.exit(build.currentResult in ['SUCCESS', 'NOT_BUILT'] ? 0 : 1)
